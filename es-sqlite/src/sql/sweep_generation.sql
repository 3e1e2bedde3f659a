-- binds: ?1 retired generation without documents
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
DELETE FROM generations WHERE id = ?1 AND state = 'retired'
