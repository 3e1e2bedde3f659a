-- Deletes the checkpoints of a reader, so that its workers cannot commit any more.
-- binds: ?1 reader
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
DELETE FROM checkpoints WHERE reader = ?1
