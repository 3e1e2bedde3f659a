-- As load_streams.sql, for one stream and without its number: a lone caller should not pay for the company that it does not
-- have. $1 stream, $2 at most how many events. No locks.
SELECT coalesce(e.version, s.version), e.event_id, nullif(e.schema_version, 1), e.type, e.payload,
       CASE WHEN e.event_id = s.event_id AND e.recorded_at = coalesce(s.recorded_at, e.recorded_at) THEN s.sealed END,
       e.recorded_at
  FROM (SELECT) one
  LEFT JOIN snapshots s ON s.stream = $1
  LEFT JOIN LATERAL (
       SELECT e.version, e.event_id, e.recorded_at, e.schema_version, e.type, e.payload
         FROM events e
        WHERE e.stream = $1 AND e.version >= coalesce(s.version, 1)
        ORDER BY e.version
        LIMIT $2) e ON true
 WHERE {here to read}
