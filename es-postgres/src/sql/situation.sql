-- $1 reader, $2 shard, $3 fencing token, $4 its name. What a worker must know beside its checkpoint; no row when the lease is
-- lost. No locks: who acts afterwards raises the number of acts once more.
SELECT c.acts, p.actor, p.reason, p.paused_at,
       ARRAY(SELECT k.key FROM parked_keys k WHERE k.reader = $1 ORDER BY k.key),
       ARRAY(SELECT k.key FROM parked_keys k WHERE k.reader = $1 AND k.shard = $2 AND k.is_retry_requested ORDER BY k.key),
       (SELECT count(*) FROM dead_letters l WHERE l.reader = $1), c.is_asked_for
  FROM checkpoints c LEFT JOIN paused_readers p ON p.reader = $4
 WHERE {here to read} AND c.reader = $1 AND c.shard = $2 AND c.fencing_token = $3
