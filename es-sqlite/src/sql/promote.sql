-- binds: ?1 building generation
-- locks: the caller holds the write lock (BEGIN IMMEDIATE) and has retired the serving generation
UPDATE generations SET state = 'serving' WHERE id = ?1
