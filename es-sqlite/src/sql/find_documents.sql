-- Documents between two places of a field. One statement, one snapshot: a promotion falls before it or after it. One row without a
-- key: nothing was found. No row: no generation serves.
-- binds: ?1 projection, ?2 field, ?3 its kind, ?4 to ?6 the place (number, text, key) after which, ?7 to ?9 the place before which,
--        ?10 the most rows
-- locks: none
SELECT generations.id, generations.version, coalesce(generations.fields ->> ?2 = ?3, 0) AS has_field,
       found.number, found.text, found.key, documents.document
FROM generations
LEFT JOIN document_fields AS found
       ON found.generation = generations.id
      AND found.field = ?2
      AND (found.number, found.text, found.key) > (?4, ?5, ?6)
      AND (found.number, found.text, found.key) < (?7, ?8, ?9)
LEFT JOIN documents ON documents.generation = generations.id AND documents.key = found.key
WHERE generations.projection = ?1 AND generations.state = 'serving'
ORDER BY found.number, found.text, found.key
LIMIT ?10
