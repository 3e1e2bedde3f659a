-- binds: ?1 stream
-- locks: none
SELECT version, event_id, state_version, state, checksum FROM snapshots WHERE stream = ?1
