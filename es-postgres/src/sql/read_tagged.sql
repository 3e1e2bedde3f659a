-- What several queries for one tag each find, one after the other, in the order of the log. $1 tags, $2 after which position of
-- each, $3 at most how many events of each, $4 the largest payload: a larger one is null. No locks. OFFSET 0: session.sql.
-- Without ORDER BY, which would sort rows that stand in this order already: nested loops over indexes keep it.
SELECT e.position, e.version, e.event_id, e.recorded_at, e.schema_version, e.type,
       CASE WHEN octet_length(e.payload) <= $4 THEN e.payload END, e.metadata, e.stream, u.ord::int
  FROM unnest($1::text[], $2::bigint[], $3::bigint[]) WITH ORDINALITY u(tag, after, most, ord)
 CROSS JOIN LATERAL (SELECT t.position FROM event_tags t WHERE t.tag = u.tag AND t.position > u.after
                      ORDER BY t.position LIMIT u.most) t
 CROSS JOIN LATERAL (SELECT * FROM events e WHERE e.position = t.position OFFSET 0) e
 WHERE {here to read}
