-- One statement, one snapshot: a switch of generations falls before it or after it.
-- binds: ?1 projection, ?2 first key, ?3 key to leave out or null, ?4 key before which to stop or null,
--        ?5 the most rows
-- locks: none
SELECT documents.key, documents.document
FROM generations
JOIN documents ON documents.generation = generations.id
WHERE generations.projection = ?1
  AND generations.state = 'serving'
  AND documents.key >= ?2
  AND documents.key IS NOT ?3
  AND documents.key < coalesce(?4, x'') -- every text is less than any blob
ORDER BY documents.key
LIMIT ?5
