-- $1 generation, $2 shard, $3 token, $4 for how long. Locks: the checkpoint's row.
UPDATE checkpoints SET lease_until = clock_timestamp() + $4
 WHERE {here} AND generation = $1 AND shard = $2 AND token = $3
