-- $1 reader, $2 shard. Takes the lease away from the worker that holds it.
-- Locks: the checkpoint's row, which the transaction has locked already.
UPDATE checkpoints SET owner = NULL, lease_until = NULL, fencing_token = fencing_token + 1
 WHERE {here} AND reader = $1 AND shard = $2
