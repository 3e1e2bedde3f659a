-- binds: ?1 generation, ?2 shard, ?3 token
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE checkpoints SET beats = beats + 1 WHERE generation = ?1 AND shard = ?2 AND token = ?3
