-- What was a generation is no more seen. Its documents are deleted later.
-- binds: ?1 reader
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE readers SET is_retired = 1 WHERE id = ?1
