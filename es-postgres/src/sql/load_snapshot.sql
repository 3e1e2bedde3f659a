-- $1 stream. No locks.
SELECT version, event_id, sealed, recorded_at FROM snapshots WHERE {here to read} AND stream = $1
