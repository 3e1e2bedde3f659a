-- What a worker must know beside its checkpoint; no row when the lease is lost.
-- binds: ?1 reader, ?2 shard, ?3 fencing token, ?4 its name
-- locks: none
SELECT checkpoints.acts, checkpoints.is_asked_for, paused_readers.actor, paused_readers.reason, paused_readers.paused_at_us,
       (SELECT json_group_array(key) FROM parked_keys WHERE reader = ?1) AS parked,
       (SELECT json_group_array(key) FROM parked_keys WHERE reader = ?1 AND shard = ?2 AND is_retry_requested) AS retries,
       (SELECT count(*) FROM dead_letters WHERE reader = ?1) AS letters
FROM checkpoints LEFT JOIN paused_readers ON paused_readers.reader = ?4
WHERE checkpoints.reader = ?1 AND checkpoints.shard = ?2 AND checkpoints.fencing_token = ?3
