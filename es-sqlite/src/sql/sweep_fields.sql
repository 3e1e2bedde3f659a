-- binds: ?1 retired generation, ?2 the most rows
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
DELETE FROM document_fields
WHERE generation = ?1
  AND (key, field) IN (SELECT key, field FROM document_fields WHERE generation = ?1 ORDER BY key, field LIMIT ?2)
