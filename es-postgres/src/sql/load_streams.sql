-- What aggregates are folded from: a row a stream, with its snapshot and the events from the snapshot's version on, or with
-- all if there is none. The events are one value, since a row of each costs more than what is in it.
-- $1 streams, $2 at most how many events of each. No locks.
-- last: the version of the last of these events. ids: side by side.
-- names: of each event its type, with /version behind it unless that is 1; neither holds a space.
-- payloads: with NUL between them, which no JSON holds.
SELECT s.version, s.event_id, s.state_version, s.checksum, s.state, t.last, t.ids, t.names, t.payloads,
       u.ord::int
  FROM unnest($1::text[]) WITH ORDINALITY u(stream, ord)
  LEFT JOIN snapshots s ON s.stream = u.stream
 CROSS JOIN LATERAL (
       SELECT max(e.version) AS last,
              string_agg(uuid_send(e.event_id), '') AS ids,
              string_agg(CASE e.schema_version WHEN 1 THEN e.type ELSE e.type || '/' || e.schema_version END, ' ')
                  AS names,
              string_agg(e.payload, '\x00') AS payloads
         FROM (SELECT e.version, e.event_id, e.schema_version, e.type, e.payload
                 FROM events e
                WHERE e.stream = u.stream
                  AND e.version >= coalesce(s.version, 1) AND e.version < coalesce(s.version, 1) + $2
                ORDER BY e.version) e) t
