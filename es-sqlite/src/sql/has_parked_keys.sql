-- A row if a key of the generation is parked.
-- binds: ?1 generation
-- locks: none
SELECT 1 FROM parked_keys WHERE generation = ?1 LIMIT 1
