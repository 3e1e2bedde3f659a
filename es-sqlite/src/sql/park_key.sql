-- binds: ?1 reader, ?2 key, ?3 shard
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
INSERT INTO parked_keys (reader, key, shard) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING
