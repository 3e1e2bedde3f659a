-- One statement, one snapshot: a promotion falls before it or after it. One row without a key: nothing was found. No row:
-- no generation serves.
-- binds: ?1 projection, ?2 first key, ?3 key to leave out or null, ?4 key before which to stop or null,
--        ?5 the most rows
-- locks: none
SELECT generations.id, generations.version, documents.key, documents.document
FROM generations
LEFT JOIN documents
       ON documents.generation = generations.id
      AND documents.key >= ?2
      AND documents.key IS NOT ?3
      AND documents.key < coalesce(?4, x'') -- every text is less than any blob
WHERE generations.projection = ?1
  AND generations.state = 'serving'
ORDER BY documents.key
LIMIT ?5
