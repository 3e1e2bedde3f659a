-- Records the event at which a reader has stopped; nothing when the lease is lost.
-- binds: ?1 reader, ?2 shard, ?3 fencing token, ?4 position, ?5 event id, ?6 its time in us, ?7 cause, ?8 now in us
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
INSERT INTO stops (reader, shard, position, event_id, recorded_at_us, cause, stopped_at_us)
SELECT reader, shard, ?4, ?5, ?6, ?7, ?8 FROM checkpoints
WHERE reader = ?1 AND shard = ?2 AND fencing_token = ?3
ON CONFLICT (reader, shard) DO UPDATE
SET position = excluded.position, event_id = excluded.event_id, recorded_at_us = excluded.recorded_at_us,
    cause = excluded.cause, stopped_at_us = excluded.stopped_at_us
