-- The oldest reader of a name, and whether it is a generation.
-- binds: ?1 name
-- locks: none
SELECT id, definition, EXISTS (SELECT 1 FROM generations WHERE generations.id = readers.id) AS is_generation
FROM readers
WHERE name = ?1 AND NOT is_retired
ORDER BY id
LIMIT 1
