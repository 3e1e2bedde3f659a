-- What aggregates are folded from: of each stream the events from its snapshot's version on, or all if it has none. One row for
-- each stream, since the driver spends more on a row than the server on putting 21 events together.
-- $1 streams, $2 at most how many events of each, $3 the largest payload. No locks.
-- The snapshot stands beside the event with which it ends; if there is no such event, it is of another history.
-- first: the version of the first of these events; the snapshot's, if the stream does not come so far; null if it is empty.
-- last, count: versions are dense, so the one follows from the other, and a range of versions is a limit.
-- names, payloads: as in load_whole_streams.sql.
SELECT coalesce(w.first, s.version), w.last, w.count, w.event_ids[1], w.times[1],
       CASE WHEN w.event_ids[1] = s.event_id AND w.times[1] = coalesce(s.recorded_at, w.times[1]) THEN s.sealed END,
       w.event_ids[w.count], w.times[w.count], w.names, w.payloads, u.ord::int
  FROM unnest($1::text[]) WITH ORDINALITY u(stream, ord)
  LEFT JOIN LATERAL (SELECT s.* FROM snapshots s WHERE s.stream = u.stream OFFSET 0) s ON true
  LEFT JOIN LATERAL (
       SELECT min(e.version) AS first, max(e.version) AS last, count(*)::int AS count,
              array_agg(e.event_id) AS event_ids, array_agg(e.recorded_at) AS times,
              string_agg(CASE e.schema_version WHEN 1 THEN e.type ELSE e.type || '/' || e.schema_version END, ' ')
                  AS names,
              string_agg(e.payload, E'\\x00') FILTER (WHERE octet_length(e.payload) <= $3) AS payloads
         FROM (SELECT e.version, e.event_id, e.recorded_at, e.schema_version, e.type, e.payload
                 FROM events e
                WHERE e.stream = u.stream
                  AND e.version >= coalesce(s.version, 1) AND e.version < coalesce(s.version, 1) + $2
                ORDER BY e.version) e) w ON true
 WHERE {here to read}
