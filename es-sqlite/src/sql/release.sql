-- binds: ?1 reader, ?2 shard, ?3 fencing token
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE checkpoints SET owner = NULL WHERE reader = ?1 AND shard = ?2 AND fencing_token = ?3
