-- binds: ?1 reader, ?2 key, ?3 position, ?4 payload
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE dead_letters SET edited = ?4, revision = revision + 1
WHERE key = ?2 AND position = ?3 AND reader IN (SELECT id FROM readers WHERE name = ?1 AND NOT is_retired)
