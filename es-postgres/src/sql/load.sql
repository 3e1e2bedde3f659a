-- $1 generation, $2 keys. A row a key, in their order. No locks.
SELECT d.document
  FROM unnest($2::text[]) WITH ORDINALITY k(key, ord)
  LEFT JOIN documents d ON d.generation = $1 AND d.key = k.key
 ORDER BY k.ord
