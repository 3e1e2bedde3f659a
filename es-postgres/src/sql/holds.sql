-- $1 reader, $2 shard, $3 fencing token. A row if the lease still holds. No locks.
SELECT 1 FROM checkpoints WHERE {here} AND reader = $1 AND shard = $2 AND fencing_token = $3
