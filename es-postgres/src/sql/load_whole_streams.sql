-- What aggregates are folded from where no snapshots are wanted: one row a stream, since for a long one the
-- rows cost more than what is in them. $1 streams, $2 at most how many events of each. No locks.
-- names: of each event its type, with /version behind it unless that is 1; neither holds a space.
-- payloads: with NUL between them, which no JSON holds.
SELECT u.ord::int, t.first, t.last, l.event_id, t.names, t.payloads
  FROM unnest($1::text[]) WITH ORDINALITY u(stream, ord)
 CROSS JOIN LATERAL (
       SELECT min(e.version) AS first, max(e.version) AS last,
              string_agg(CASE e.schema_version WHEN 1 THEN e.type ELSE e.type || '/' || e.schema_version END, ' ')
                  AS names,
              string_agg(e.payload, '\x00') AS payloads
         FROM (SELECT e.version, e.schema_version, e.type, e.payload
                 FROM events e
                WHERE e.stream = u.stream
                ORDER BY e.version
                LIMIT $2) e) t
  LEFT JOIN LATERAL (SELECT e.event_id FROM events e WHERE e.stream = u.stream AND e.version = t.last) l ON true
