-- $1 stream. No locks.
SELECT version, event_id, state_version, checksum, state FROM snapshots WHERE stream = $1
