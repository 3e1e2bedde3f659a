-- binds: ?1 stream
-- locks: none
SELECT version, event_id, recorded_at_us, state_version, state, checksum FROM snapshots WHERE stream = ?1
