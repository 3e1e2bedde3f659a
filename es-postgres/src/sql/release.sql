-- $1 reader, $2 shard, $3 fencing token. Locks: the checkpoint's row.
UPDATE checkpoints SET owner = NULL, lease_until = NULL
 WHERE {here} AND reader = $1 AND shard = $2 AND fencing_token = $3
