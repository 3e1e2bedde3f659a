-- binds: ?1 reader, ?2 JSON array of shards, ?3 the position, ?4 the fencing token, ?5 the last event and ?6 its time with
-- which new ones start
-- locks: the caller holds the write lock (BEGIN IMMEDIATE); a reader that was deleted gets no shards
INSERT INTO checkpoints (reader, shard, position, fencing_token, event_id, recorded_at_us)
SELECT readers.id, item.value, ?3, ?4, ?5, ?6
FROM json_each(?2) AS item, readers
WHERE readers.id = ?1 AND NOT readers.is_retired
ON CONFLICT DO NOTHING
