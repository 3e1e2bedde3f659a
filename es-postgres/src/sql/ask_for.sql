-- $1 reader, $2 shards.
-- Locks: the checkpoints' rows, without waiting: the worker that asks looks again.
UPDATE checkpoints SET is_asked_for = true, acts = acts + 1
 WHERE {here} AND (reader, shard) IN (
       SELECT reader, shard FROM checkpoints
        WHERE reader = $1 AND shard = ANY ($2) AND owner IS NOT NULL AND NOT is_asked_for
          FOR UPDATE SKIP LOCKED)
