-- $1 reader, $2 shard, $3 owner, $4 for how long.
-- No row when another owner holds it or there is no such shard (any more).
-- Locks: the checkpoint's row, without waiting: who holds it is committing and keeps the lease.
UPDATE checkpoints
   SET owner = $3, is_asked_for = false, fencing_token = fencing_token + 1, lease_until = clock_timestamp() + $4,
       leased_at = CASE WHEN owner = $3 THEN leased_at ELSE clock_timestamp() END
 WHERE {here} AND (reader, shard) IN (
       SELECT reader, shard FROM checkpoints
        WHERE reader = $1 AND shard = $2 AND (owner IS NULL OR owner = $3 OR lease_until <= clock_timestamp())
          FOR UPDATE SKIP LOCKED)
RETURNING fencing_token, position, event_id, recorded_at, cursor
