-- binds: ?1 reader
-- locks: none
SELECT actor, reason, paused_at_us FROM paused_readers WHERE reader = ?1
