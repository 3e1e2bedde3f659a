-- $1 readers, $2 shards, $3 fencing tokens, $4 for how long each. Numbers, from 1, of those that still hold, and the
-- acts of operators that concern them.
-- Locks: the checkpoints' rows, without waiting: a commit in flight, which holds one, prolongs the lease itself.
WITH asked AS (
    SELECT a.* FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::interval[])
           WITH ORDINALITY AS a(reader, shard, fencing_token, ttl, number)
     WHERE {here}
), free AS (
    SELECT c.reader, c.shard, a.ttl FROM checkpoints c JOIN asked a USING (reader, shard, fencing_token)
       FOR UPDATE OF c SKIP LOCKED
), renewed AS (
    UPDATE checkpoints c SET lease_until = clock_timestamp() + f.ttl
      FROM free f WHERE c.reader = f.reader AND c.shard = f.shard
)
SELECT a.number, c.acts FROM asked a JOIN checkpoints c USING (reader, shard, fencing_token)
