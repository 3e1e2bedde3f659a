-- $1 name. No locks.
SELECT events, position, event_id FROM imports WHERE name = $1
