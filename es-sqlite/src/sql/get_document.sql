-- One statement, one snapshot: a switch of generations falls before it or after it.
-- binds: ?1 projection, ?2 key
-- locks: none
SELECT documents.document
FROM generations
JOIN documents ON documents.generation = generations.id AND documents.key = ?2
WHERE generations.projection = ?1 AND generations.state = 'serving'
