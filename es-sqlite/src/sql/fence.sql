-- Without its checkpoints no worker of a generation can commit any more.
-- binds: ?1 generation
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
DELETE FROM checkpoints WHERE generation = ?1
