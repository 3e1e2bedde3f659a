-- What aggregates are folded from: of each stream the events from its snapshot's version on, or all if it has none.
-- $1 streams, $2 at most how many events of each. No locks.
-- The snapshot stands beside the event with which it ends; if there is no such event, it is of another history.
-- version: the snapshot's in the one row of a stream that does not come so far; null in that of an empty one.
-- event_id, recorded_at: asked for of the snapshot's event and of the last one only. But to look first which one is the last
-- costs the server 17 us, and the two values in each of 21 rows 4.
-- schema_version: null for 1, since what is null costs nothing to send.
-- Versions are dense, so a range of them is a limit. OFFSET 0: session.sql.
SELECT coalesce(e.version, s.version), e.event_id, nullif(e.schema_version, 1), e.type, e.payload,
       CASE WHEN e.event_id = s.event_id AND e.recorded_at = coalesce(s.recorded_at, e.recorded_at) THEN s.sealed END,
       e.recorded_at, u.ord::int
  FROM unnest($1::text[]) WITH ORDINALITY u(stream, ord)
  LEFT JOIN LATERAL (SELECT s.* FROM snapshots s WHERE s.stream = u.stream OFFSET 0) s ON true
  LEFT JOIN LATERAL (
       SELECT e.version, e.event_id, e.recorded_at, e.schema_version, e.type, e.payload
         FROM events e
        WHERE e.stream = u.stream AND e.version >= coalesce(s.version, 1) AND e.version < coalesce(s.version, 1) + $2
        ORDER BY e.version
        OFFSET 0) e ON true
 WHERE {here to read}
