-- $1 generation, $2 keys, $3 budget in bytes. A row a key, in their order, up to the document with which they reach the
-- budget: only what is sent is read from its pages, since the length of a large value stands in its row. No locks.
-- OFFSET 0: session.sql.
SELECT s.document
  FROM (SELECT k.ord, d.document,
               sum(octet_length(d.document)) OVER (ORDER BY k.ord ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
          FROM unnest($2::text[]) WITH ORDINALITY k(key, ord)
          LEFT JOIN LATERAL (SELECT * FROM documents d WHERE d.generation = $1 AND d.key = k.key OFFSET 0) d ON true) s
 WHERE {here to read} AND coalesce(s.before, 0) < $3
 ORDER BY s.ord
