-- $1 reader. The shards whose leases hold. No locks.
SELECT shard, owner, is_asked_for FROM checkpoints
 WHERE {here to read} AND reader = $1 AND owner IS NOT NULL AND lease_until > clock_timestamp()
