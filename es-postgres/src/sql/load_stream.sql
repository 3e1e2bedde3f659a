-- As load_streams.sql, for one stream and without its number: a lone caller should not pay for the company that it does not
-- have. $1 stream, $2 at most how many events. No locks.
SELECT s.version, s.event_id, s.state_version, s.checksum, s.state, t.last, t.ids, t.names, t.payloads
  FROM (SELECT) one
  LEFT JOIN snapshots s ON s.stream = $1
 CROSS JOIN LATERAL (
       SELECT max(e.version) AS last,
              string_agg(uuid_send(e.event_id), '') AS ids,
              string_agg(CASE e.schema_version WHEN 1 THEN e.type ELSE e.type || '/' || e.schema_version END, ' ')
                  AS names,
              string_agg(e.payload, '\x00') AS payloads
         FROM (SELECT e.version, e.event_id, e.schema_version, e.type, e.payload
                 FROM events e
                WHERE e.stream = $1
                  AND e.version >= coalesce(s.version, 1) AND e.version < coalesce(s.version, 1) + $2
                ORDER BY e.version) e) t
