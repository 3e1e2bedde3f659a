-- Notes what becomes of the letters of a reader under a key, or of one of them: they are left out, or handled with another payload.
-- binds: ?1 reader, ?2 key, ?3 position or null, ?4 payload or null
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
INSERT OR REPLACE INTO amendments (reader, position, key, shard, payload)
SELECT reader, position, key, '', ?4
FROM dead_letters
WHERE key = ?2
  AND (?3 IS NULL OR position = ?3)
  AND reader IN (SELECT id FROM readers WHERE name = ?1 AND NOT is_retired)
