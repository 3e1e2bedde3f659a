-- The parked keys of a reader belong to the one shard of its new source.
-- binds: ?1 reader, ?2 shard
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE parked_keys SET shard = ?2 WHERE reader = ?1
