-- scan
-- $1 projection, $2 lower bound, $3 whether the bound itself belongs to the range, $4 at most how many.
-- No locks; one snapshot, as in get.sql. One row without a key where nothing is found, none where none serves.
SELECT g.id, g.version, d.key, d.document
  FROM generations g
  LEFT JOIN LATERAL (
       SELECT key, document
         FROM documents
        WHERE generation = g.id AND key >= $2 AND ($3 OR key <> $2)
        ORDER BY key
        LIMIT $4
       ) d ON true
 WHERE {here to read} AND g.projection = $1 AND g.state = 'serving'
 ORDER BY d.key
