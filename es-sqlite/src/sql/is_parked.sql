-- A row if the key is parked.
-- binds: ?1 reader, ?2 key
-- locks: none
SELECT 1 FROM parked_keys
WHERE key = ?2 AND generation IN (SELECT id FROM generations WHERE projection = ?1 AND state <> 'retired')
LIMIT 1
