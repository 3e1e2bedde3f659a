-- $1 name. No locks.
SELECT events, position, event_id, recorded_at FROM imports WHERE {here} AND name = $1
