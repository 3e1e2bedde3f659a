-- $1 query (see matching() in the migrations), $2 after which position, $3 at most how many, $4 how many bytes of payload end a
-- page, as in read_log.sql. No locks. OFFSET 0: session.sql.
SELECT position, version, event_id, recorded_at, schema_version, type, payload, metadata, stream
  FROM (SELECT e.*, sum(octet_length(e.payload)) OVER (ORDER BY e.position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
          FROM matching($1::text::jsonb, $2, $3) m(position)
         CROSS JOIN LATERAL (SELECT * FROM events e WHERE e.position = m.position OFFSET 0) e) e
 WHERE {here to read} AND coalesce(before, 0) < $4
 ORDER BY position
