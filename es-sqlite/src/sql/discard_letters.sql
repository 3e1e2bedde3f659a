-- binds: ?1 reader, ?2 key, ?3 only this position or null
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
DELETE FROM dead_letters
WHERE key = ?2 AND (?3 IS NULL OR position = ?3)
  AND reader IN (SELECT id FROM readers WHERE name = ?1 AND NOT is_retired)
