-- One statement, one snapshot: a promotion falls before it or after it. No row: no generation serves.
-- binds: as in find_documents.sql, up to ?9
-- locks: none
SELECT generations.id, generations.version, coalesce(generations.fields ->> ?2 = ?3, 0) AS has_field,
       (SELECT count(*)
        FROM document_fields AS found
        WHERE found.generation = generations.id
          AND found.field = ?2
          AND (found.number, found.text, found.key) > (?4, ?5, ?6)
          AND (found.number, found.text, found.key) < (?7, ?8, ?9)) AS counted
FROM generations
WHERE generations.projection = ?1 AND generations.state = 'serving'
