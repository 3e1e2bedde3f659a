-- binds: ?1 generation, ?2 JSON array of shards, ?3 the position and ?4 the fencing token with which new ones start
-- locks: the caller holds the write lock (BEGIN IMMEDIATE); a generation that was deleted gets no shards
INSERT INTO checkpoints (generation, shard, position, fencing_token)
SELECT generations.id, item.value, ?3, ?4
FROM json_each(?2) AS item, generations
WHERE generations.id = ?1 AND generations.state <> 'retired'
ON CONFLICT DO NOTHING
