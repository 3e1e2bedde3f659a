-- What aggregates are folded from: of each stream the events from its snapshot's version on, or all if it has none.
-- $1 streams, $2 at most how many events of each. No locks.
-- The snapshot stands beside the event with which it ends; if there is no such event, it is of another history.
-- version: the snapshot's in the one row of a stream that does not come so far; null in that of an empty one.
-- event_id, recorded_at: of the snapshot's event and of the last one, which are all that is asked for; so h looks for the
-- last one first. schema_version: null for 1. What is null costs nothing to send.
-- OFFSET 0: session.sql.
SELECT coalesce(e.version, s.version), CASE WHEN e.version IN (h.version, s.version) THEN e.event_id END,
       nullif(e.schema_version, 1), e.type, e.payload,
       CASE WHEN e.event_id = s.event_id AND e.recorded_at = coalesce(s.recorded_at, e.recorded_at) THEN s.sealed END,
       CASE WHEN e.version IN (h.version, s.version) THEN e.recorded_at END,
       u.ord::int
  FROM unnest($1::text[]) WITH ORDINALITY u(stream, ord)
  LEFT JOIN LATERAL (SELECT s.* FROM snapshots s WHERE s.stream = u.stream OFFSET 0) s ON true
  LEFT JOIN LATERAL (
       SELECT e.version
         FROM events e
        WHERE e.stream = u.stream AND e.version < least(coalesce(s.version, 1), 1::bigint << 62) + $2
        ORDER BY e.version DESC
        LIMIT 1) h ON true
  LEFT JOIN LATERAL (
       SELECT e.version, e.event_id, e.recorded_at, e.schema_version, e.type, e.payload
         FROM events e
        WHERE e.stream = u.stream AND e.version >= coalesce(s.version, 1)
        ORDER BY e.version
        LIMIT $2) e ON true
 WHERE {here to read}
