-- $1 generation, $2 shard, $3 owner, $4 also from a live owner, $5 for how long.
-- No row when another owner holds it or there is no such shard (any more).
-- Locks: the checkpoint's row; behind a commit in flight it waits and then hands out what that one left.
UPDATE checkpoints
   SET owner = $3, token = token + 1, lease_until = clock_timestamp() + $5
 WHERE {here} AND generation = $1 AND shard = $2
   AND ($4 OR owner IS NULL OR owner = $3 OR lease_until <= clock_timestamp())
RETURNING token, position, event_id, recorded_at, cursor
