-- binds: ?1 reader, ?2 JSON array of shards, ?3 the position and ?4 the fencing token with which new ones start
-- locks: the caller holds the write lock (BEGIN IMMEDIATE); a reader that was deleted gets no shards
INSERT INTO checkpoints (reader, shard, position, fencing_token)
SELECT readers.id, item.value, ?3, ?4
FROM json_each(?2) AS item, readers
WHERE readers.id = ?1 AND NOT readers.is_retired
ON CONFLICT DO NOTHING
