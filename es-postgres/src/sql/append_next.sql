-- The only event of an append, after the last position, as the last event of its stream: this session has itself written
-- what stands before both, or it is the stream's first. If another event has the one or the other place, a unique index
-- refuses it. So it needs no look at the log, which would need a snapshot from under the append lock, which would need a function.
-- $1 position, $2 version, $3-$8 the event. Locks: the append lock, and what INSERT takes, until the end of
-- the statement's own transaction.
INSERT INTO events (position, version, event_id, schema_version, stream, type, payload, metadata)
SELECT $1, $2, $3, $4, $5, $6, $7, $8
 WHERE {here} AND take_append_lock()
