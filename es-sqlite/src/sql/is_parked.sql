-- A row if the key is parked.
-- binds: ?1 reader, ?2 key
-- locks: none
SELECT 1 FROM parked_keys
WHERE key = ?2 AND reader IN (SELECT id FROM readers WHERE name = ?1 AND NOT is_retired)
LIMIT 1
