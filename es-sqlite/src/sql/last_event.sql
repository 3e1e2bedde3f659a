-- binds: ?1 reader
-- locks: the caller's write lock keeps the answer true
SELECT event_id, recorded_at_us FROM checkpoints WHERE reader = ?1 AND event_id IS NOT NULL LIMIT 1
