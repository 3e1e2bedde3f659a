-- What aggregates are folded from where no snapshots are wanted: a row for each 128 events of a stream. Together they may be
-- long, and what does not fit into 128 KB the server's allocator takes from the kernel and gives back each time (1,000 events
-- of 204 bytes: 0.6 instead of 1.0 ms).
-- $1 streams, $2 at most how many events of each, $3 the largest payload. No locks.
-- version, event_id, recorded_at: the last of these events; null in the one row of a stream without events.
-- names: of each event its type, followed by /version unless that is 1; neither holds a space.
-- payloads: with NUL between them, which no JSON holds. Those that are larger than $3 are left out, unread: their length stands in
-- their row.
SELECT h.version, h.event_id, h.recorded_at, t.names, t.payloads, u.ord::int
  FROM unnest($1::text[]) WITH ORDINALITY u(stream, ord)
  LEFT JOIN LATERAL (SELECT e.version, e.event_id, e.recorded_at
                       FROM events e
                      WHERE e.stream = u.stream AND e.version <= $2
                      ORDER BY e.version DESC
                      LIMIT 1) h ON true
  LEFT JOIN LATERAL generate_series(0, h.version - 1, 128) c(after) ON true
  LEFT JOIN LATERAL (
       SELECT string_agg(CASE e.schema_version WHEN 1 THEN e.type ELSE e.type || '/' || e.schema_version END, ' ')
                  AS names,
              string_agg(e.payload, E'\\x00') FILTER (WHERE octet_length(e.payload) <= $3) AS payloads
         FROM (SELECT e.schema_version, e.type, e.payload
                 FROM events e
                WHERE e.stream = u.stream AND e.version > c.after AND e.version <= least(c.after + 128, h.version)
                ORDER BY e.version) e) t ON true
 WHERE {here to read}
