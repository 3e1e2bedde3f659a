-- scan_below
-- scan.sql with $5, the first key after the range. A statement of its own, so that the bound always is
-- a condition of the index and never a filter that walks on to the end of the table.
SELECT g.id, g.version, d.key, d.document
  FROM generations g
  LEFT JOIN LATERAL (
       SELECT key, document
         FROM documents
        WHERE generation = g.id AND key >= $2 AND ($3 OR key <> $2) AND key < $5
        ORDER BY key
        LIMIT $4
       ) d ON true
 WHERE {here to read} AND g.projection = $1 AND g.state = 'serving'
 ORDER BY d.key
