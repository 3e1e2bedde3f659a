-- find_last
-- find.sql from the end.
SELECT g.id, g.version, coalesce(g.fields ->> $2 = $3, false), f.number, f.text, f.key,
       (SELECT document FROM documents WHERE generation = g.id AND key = f.key)
  FROM generations g
  LEFT JOIN LATERAL (
       SELECT number, text, key
         FROM document_fields
        WHERE generation = g.id AND field = $2 AND key >= '' AND (number, text, key) > ($4, $5, $6)
          AND (number, text, key) < ($7, $8, $9)
        ORDER BY number DESC, text DESC, key DESC
        LIMIT $10
       ) f ON true
 WHERE {here to read} AND g.projection = $1 AND g.state = 'serving'
 ORDER BY f.number DESC, f.text DESC, f.key DESC
