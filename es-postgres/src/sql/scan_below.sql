-- scan.sql with $5, the first key behind the range. A statement of its own, so that the bound always is
-- a condition of the index and never a filter that walks on to the end of the table.
SELECT key, document
  FROM documents
 WHERE generation = (SELECT id FROM generations WHERE projection = $1 AND state = 'serving')
   AND key >= $2 AND ($3 OR key <> $2) AND key < $5
 ORDER BY key
 LIMIT $4
