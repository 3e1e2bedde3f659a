-- As load_streams.sql, for one stream and without its number: a lone caller should not pay for the company that it does not
-- have. To look up the snapshot twice costs less here than a loop does. $1 stream, $2 at most how many events. No locks.
SELECT -s.version, s.event_id, s.state_version, s.checksum::text, s.state
  FROM snapshots s
 WHERE s.stream = $1 AND s.version > 0
 UNION ALL
(SELECT e.version, e.event_id, nullif(e.schema_version, 1)::bigint, e.type, e.payload
   FROM events e
  WHERE e.stream = $1 AND e.version >= coalesce((SELECT s.version FROM snapshots s WHERE s.stream = $1), 1)
  ORDER BY e.version
  LIMIT $2)
