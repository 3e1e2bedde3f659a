-- $1 generation, $2 keys. A row a key, in their order: the document, and the values that it is found by. No locks.
-- OFFSET 0: session.sql.
SELECT d.document, f.fields, f.numbers, f.texts
  FROM unnest($2::text[]) WITH ORDINALITY k(key, ord)
  LEFT JOIN LATERAL (SELECT * FROM documents d WHERE d.generation = $1 AND d.key = k.key OFFSET 0) d ON true
  CROSS JOIN LATERAL (SELECT coalesce(array_agg(f.field), '{}') AS fields, coalesce(array_agg(f.number), '{}') AS numbers,
                             coalesce(array_agg(f.text), '{}') AS texts
                        FROM (SELECT * FROM document_fields f WHERE f.generation = $1 AND f.key = k.key OFFSET 0) f) f
 WHERE {here to read}
 ORDER BY k.ord
