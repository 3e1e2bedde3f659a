-- No row: the lease is lost. Otherwise the acts of operators that concern it.
-- binds: ?1 reader, ?2 shard, ?3 fencing token
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE checkpoints SET beats = beats + 1 WHERE reader = ?1 AND shard = ?2 AND fencing_token = ?3
RETURNING acts
