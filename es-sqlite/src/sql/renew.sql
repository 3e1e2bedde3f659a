-- binds: ?1 generation, ?2 shard, ?3 token, ?4 owner, ?5 its end in ms
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE checkpoints SET owner = ?4, expires_at_ms = ?5 WHERE generation = ?1 AND shard = ?2 AND token = ?3
