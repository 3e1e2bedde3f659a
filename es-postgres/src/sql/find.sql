-- find
-- $1 projection, $2 field, $3 its kind, $4 to $6 the place (number, text, key) after which, $7 to $9 the place before which, $10 at
-- most how many. No locks; one snapshot, as in get.sql. One row without a key where nothing is found, none where none serves. The
-- third column says whether the generation has the field.
SELECT g.id, g.version, coalesce(g.fields ->> $2 = $3, false), f.number, f.text, f.key,
       (SELECT document FROM documents WHERE generation = g.id AND key = f.key)
  FROM generations g
  LEFT JOIN LATERAL (
       SELECT number, text, key
         FROM document_fields
        WHERE generation = g.id AND field = $2 AND key >= '' AND (number, text, key) > ($4, $5, $6)
          AND (number, text, key) < ($7, $8, $9)
        ORDER BY number, text, key
        LIMIT $10
       ) f ON true
 WHERE {here to read} AND g.projection = $1 AND g.state = 'serving'
 ORDER BY f.number, f.text, f.key
