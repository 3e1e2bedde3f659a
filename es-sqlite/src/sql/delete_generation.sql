-- Its reader stays until its documents are deleted.
-- binds: ?1 generation, ?2 the state it must be in
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
DELETE FROM generations WHERE id = ?1 AND state = ?2
