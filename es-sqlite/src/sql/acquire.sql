-- Takes the lease and draws the next fencing token. No row: another owner holds it, or there is no such shard.
-- binds: ?1 generation, ?2 shard, ?3 owner, ?4 whether to take it from a live owner, ?5 now in ms, ?6 its end in ms
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE checkpoints
SET owner = ?3, token = token + 1, expires_at_ms = ?6
WHERE generation = ?1 AND shard = ?2 AND (?4 OR owner IS NULL OR owner = ?3 OR expires_at_ms <= ?5)
RETURNING token, position, event_id, recorded_at_us, cursor
