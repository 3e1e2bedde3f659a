-- Takes the lease and returns the next fencing token. No row: there is no such shard.
-- binds: ?1 reader, ?2 shard, ?3 owner, ?4 its process, ?5 the lease's length in ms
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE checkpoints
SET leased_at_us = iif(owner = ?3, leased_at_us, CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000),
    owner = ?3, process = ?4, ttl_ms = ?5, fencing_token = fencing_token + 1, beats = 0, is_asked_for = 0
WHERE reader = ?1 AND shard = ?2
RETURNING fencing_token, position, event_id, recorded_at_us, cursor
