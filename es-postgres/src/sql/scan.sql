-- $1 projection, $2 lower bound, $3 whether the bound itself belongs to the range, $4 at most how many.
-- No locks; one snapshot, as in get.sql.
SELECT key, document
  FROM documents
 WHERE generation = (SELECT id FROM generations WHERE projection = $1 AND state = 'serving')
   AND key >= $2 AND ($3 OR key <> $2)
 ORDER BY key
 LIMIT $4
