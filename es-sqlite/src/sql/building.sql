-- binds: ?1 reader
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
SELECT id FROM generations WHERE projection = ?1 AND state = 'building'
