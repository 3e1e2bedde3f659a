-- $1 name. No locks.
SELECT events, position, event_id FROM imports WHERE {here} AND name = $1
