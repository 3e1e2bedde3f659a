-- One statement, one snapshot: a promotion falls before it or after it. No row: no generation serves.
-- binds: ?1 projection, ?2 key
-- locks: none
SELECT generations.id, generations.version, documents.document
FROM generations
LEFT JOIN documents ON documents.generation = generations.id AND documents.key = ?2
WHERE generations.projection = ?1 AND generations.state = 'serving'
