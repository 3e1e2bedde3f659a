-- $1 reader, $2 shard, $3 owner, $4 for how long. No row when there is no such shard (any more).
-- Locks: the checkpoint's row; it waits for a commit in flight and then hands out what that one left.
UPDATE checkpoints
   SET owner = $3, is_asked_for = false, fencing_token = fencing_token + 1, lease_until = clock_timestamp() + $4,
       leased_at = CASE WHEN owner = $3 THEN leased_at ELSE clock_timestamp() END
 WHERE {here} AND reader = $1 AND shard = $2
RETURNING fencing_token, position, event_id, recorded_at, cursor
