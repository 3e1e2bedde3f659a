-- binds: ?1 retired reader, ?2 the most documents
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
DELETE FROM documents
WHERE generation = ?1 AND key IN (SELECT key FROM documents WHERE generation = ?1 ORDER BY key LIMIT ?2)
