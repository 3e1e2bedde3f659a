-- The generation that serves, and the prefix of its tables.
-- binds: ?1 projection
-- locks: none
SELECT id, version, prefix FROM generations JOIN table_generations ON generation = id
WHERE projection = ?1 AND state = 'serving'
