-- binds: ?1 reader, ?2 key, ?3 only this position or null
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
DELETE FROM dead_letters
WHERE key = ?2 AND (?3 IS NULL OR position = ?3)
  AND generation IN (SELECT id FROM generations WHERE projection = ?1 AND state <> 'retired')
