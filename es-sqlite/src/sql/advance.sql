-- Compare-and-set on fencing token and position: changes one row, or none if the lease was lost or the commit was made
-- before. Returns the acts of operators up to now.
-- binds: ?1 reader, ?2 shard, ?3 fencing token, ?4 position before, ?5 position after, ?6 event id, ?7 its time in us,
--        ?8 cursor, ?9 owner, ?10 its process, ?11 the lease's length in ms
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE checkpoints
SET position = ?5, event_id = ?6, recorded_at_us = ?7, cursor = ?8, owner = ?9, process = ?10, ttl_ms = ?11, beats = beats + 1
WHERE reader = ?1 AND shard = ?2 AND fencing_token = ?3 AND position = ?4
RETURNING acts
