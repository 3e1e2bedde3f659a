-- $1 generation, $2 keys. A row a key, in their order. No locks. OFFSET 0: session.sql.
SELECT d.document
  FROM unnest($2::text[]) WITH ORDINALITY k(key, ord)
  LEFT JOIN LATERAL (SELECT * FROM documents d WHERE d.generation = $1 AND d.key = k.key OFFSET 0) d ON true
 WHERE {here}
 ORDER BY k.ord
