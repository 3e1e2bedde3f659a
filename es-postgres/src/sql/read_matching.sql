-- $1 query (see matching() in the migrations), $2 after which position, $3 at most how many. No locks. OFFSET 0: session.sql.
SELECT e.position, e.version, e.event_id, e.recorded_at, e.schema_version, e.type, e.payload, e.metadata, e.stream
  FROM matching($1::text::jsonb, $2, $3) m(position)
 CROSS JOIN LATERAL (SELECT * FROM events e WHERE e.position = m.position OFFSET 0) e
 WHERE {here to read}
 ORDER BY e.position
