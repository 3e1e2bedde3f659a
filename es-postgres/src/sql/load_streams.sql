-- What aggregates are folded from: the snapshot of each stream and the events from its version on, or all if there is none.
-- $1 streams, $2 at most how many events of each. No locks.
-- version: below zero it is the snapshot's, which comes first and has its checksum, in digits, for a type.
-- schema_version: null for 1, since what is null costs nothing to send.
-- OFFSET 0: session.sql.
SELECT r.version, r.event_id, r.schema_version, r.type, r.payload, u.ord::int
  FROM unnest($1::text[]) WITH ORDINALITY u(stream, ord)
  LEFT JOIN LATERAL (SELECT s.* FROM snapshots s WHERE s.stream = u.stream OFFSET 0) s ON true
 CROSS JOIN LATERAL (
       SELECT -s.version, s.event_id, s.state_version, s.checksum::text, s.state
        WHERE s.version > 0
        UNION ALL
       (SELECT e.version, e.event_id, nullif(e.schema_version, 1)::bigint, e.type, e.payload
          FROM events e
         WHERE e.stream = u.stream AND e.version >= coalesce(s.version, 1)
         ORDER BY e.version
         LIMIT $2)) r(version, event_id, schema_version, type, payload)
