-- binds: ?1 reader, ?2 JSON array of shards
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE checkpoints SET is_asked_for = 1, acts = acts + 1
WHERE reader = ?1 AND shard IN (SELECT value FROM json_each(?2)) AND owner IS NOT NULL AND NOT is_asked_for
