-- As load_streams.sql, for one stream and without its number: a single caller does not pay for what several need.
-- $1 stream, $2 at most how many events. No locks.
-- Without ORDER BY and LIMIT, which need a sub-select, since the server passes fewer rows from node to node: the rows come in
-- the order of the index, and the loader reads the stream in pages if they do not.
SELECT coalesce(e.version, s.version), e.event_id, nullif(e.schema_version, 1), e.type, e.payload,
       CASE WHEN e.event_id = s.event_id AND e.recorded_at = coalesce(s.recorded_at, e.recorded_at) THEN s.sealed END,
       e.recorded_at
  FROM (SELECT) one
  LEFT JOIN snapshots s ON s.stream = $1
  LEFT JOIN events e
         ON e.stream = $1 AND e.version >= coalesce(s.version, 1) AND e.version < coalesce(s.version, 1) + $2
 WHERE {here to read}
