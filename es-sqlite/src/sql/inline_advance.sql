-- Compare-and-set on fencing token and position, as advance.sql. A worker that holds the lease loses it. Returns the fencing token after it.
-- binds: ?1 reader, ?2 shard, ?3 fencing token, ?4 position before, ?5 position after, ?6 event id, ?7 its time in us
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE checkpoints
SET position = ?5, event_id = ?6, recorded_at_us = ?7, owner = NULL, fencing_token = fencing_token + (owner IS NOT NULL)
WHERE reader = ?1 AND shard = ?2 AND fencing_token = ?3 AND position = ?4
RETURNING fencing_token
