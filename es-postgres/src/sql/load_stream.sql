-- As load_streams.sql, for one stream: a lone caller should not pay for the company that it does not have.
-- $1 stream, $2 at most how many events. No locks.
SELECT 1, s.version, s.event_id, s.state_version, s.checksum, NULL::text, s.state
  FROM snapshots s
 WHERE s.stream = $1
 UNION ALL
(SELECT 1, e.version, e.event_id, e.schema_version, NULL, e.type, e.payload
   FROM events e
  WHERE e.stream = $1
    AND e.version >= coalesce((SELECT s.version FROM snapshots s WHERE s.stream = $1), 1)
  ORDER BY e.version
  LIMIT $2)
