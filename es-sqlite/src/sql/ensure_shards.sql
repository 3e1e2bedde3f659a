-- binds: ?1 generation, ?2 JSON array of shards
-- locks: the caller holds the write lock (BEGIN IMMEDIATE); a generation that is gone gets none
INSERT INTO checkpoints (generation, shard)
SELECT generations.id, item.value
FROM json_each(?2) AS item, generations
WHERE generations.id = ?1 AND generations.state <> 'retired'
ON CONFLICT DO NOTHING
