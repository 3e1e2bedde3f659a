-- Deletes the checkpoints of a generation, so that its workers cannot commit any more.
-- binds: ?1 generation
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
DELETE FROM checkpoints WHERE generation = ?1
