-- binds: ?1 reader
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
DELETE FROM paused_readers WHERE reader = ?1
