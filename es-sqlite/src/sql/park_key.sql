-- binds: ?1 generation, ?2 key, ?3 shard
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
INSERT INTO parked_keys (generation, key, shard) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING
