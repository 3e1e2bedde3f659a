-- A row if the lease still holds.
-- binds: ?1 reader, ?2 shard, ?3 fencing token
-- locks: none
SELECT 1 FROM checkpoints WHERE reader = ?1 AND shard = ?2 AND fencing_token = ?3
