-- Takes the lease and draws the next fencing token. No row: another owner holds it, or the generation is gone.
-- binds: ?1 generation, ?2 shard, ?3 owner, ?4 whether to take it from a live owner, ?5 now in ms, ?6 its end in ms
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
INSERT INTO checkpoints (generation, shard, owner, token, expires_at_ms)
SELECT id, ?2, ?3, 1, ?6 FROM generations WHERE id = ?1 AND state <> 'retired'
ON CONFLICT (generation, shard) DO UPDATE
SET owner = excluded.owner, token = checkpoints.token + 1, expires_at_ms = excluded.expires_at_ms
WHERE ?4 OR checkpoints.owner IS NULL OR checkpoints.owner = excluded.owner OR checkpoints.expires_at_ms <= ?5
RETURNING token, position, event_id, cursor
