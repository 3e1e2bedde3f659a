-- $1 stream. No locks.
SELECT version, event_id, sealed FROM snapshots WHERE stream = $1
