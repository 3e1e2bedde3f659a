-- $1 reader, $2 shard, $3 fencing token, $4 position, $5 event, $6 its time, $7 cause. Nothing when the lease is lost, or when
-- it is known already.
-- Locks: the row of the shard.
INSERT INTO stops AS s (reader, shard, position, event_id, recorded_at, cause)
SELECT c.reader, c.shard, $4, $5, $6, $7 FROM checkpoints c
 WHERE {here} AND c.reader = $1 AND c.shard = $2 AND c.fencing_token = $3
    ON CONFLICT (reader, shard) DO UPDATE
   SET position = excluded.position, event_id = excluded.event_id, recorded_at = excluded.recorded_at,
       cause = excluded.cause, stopped_at = clock_timestamp()
 WHERE (s.position, s.event_id, s.cause) IS DISTINCT FROM (excluded.position, excluded.event_id, excluded.cause)
