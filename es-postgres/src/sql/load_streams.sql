-- What aggregates are folded from: of each stream a row for its snapshot (its type is null), and one for
-- each event from the snapshot's version on, in order. $1 streams, $2 at most how many events of each.
-- No locks.
SELECT u.ord::int, r.version, r.event_id, r.schema_version, r.checksum, r.type, r.payload
  FROM unnest($1::text[]) WITH ORDINALITY u(stream, ord)
 CROSS JOIN LATERAL (
       SELECT s.version, s.event_id, s.state_version AS schema_version, s.checksum, NULL AS type, s.state AS payload
         FROM snapshots s
        WHERE s.stream = u.stream
        UNION ALL
       (SELECT e.version, e.event_id, e.schema_version, NULL, e.type, e.payload
          FROM events e
         WHERE e.stream = u.stream
           AND e.version >= coalesce((SELECT s.version FROM snapshots s WHERE s.stream = u.stream), 1)
         ORDER BY e.version
         LIMIT $2)) r
