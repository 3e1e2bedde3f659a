-- binds: ?1 retired reader without documents
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
DELETE FROM readers WHERE id = ?1 AND is_retired
