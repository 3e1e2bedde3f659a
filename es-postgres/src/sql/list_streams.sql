-- $1 name with which to start, $2 whether it is in the range, $3 name before which to stop or null, $4 the most rows. No locks.
-- Each step looks up the next name and skips the events in between: a page costs as much for streams of a million events.
WITH RECURSIVE names (stream, number) AS (
    SELECT CASE WHEN $2 THEN (SELECT e.stream FROM events e WHERE e.stream >= $1 ORDER BY e.stream, e.version LIMIT 1)
                ELSE (SELECT e.stream FROM events e WHERE e.stream > $1 ORDER BY e.stream, e.version LIMIT 1) END, 1::bigint
     WHERE {here to read}
     UNION ALL
    SELECT (SELECT e.stream FROM events e WHERE e.stream > n.stream ORDER BY e.stream, e.version LIMIT 1), n.number + 1
      FROM names n WHERE n.number < $4 AND n.stream IS NOT NULL AND ($3::text IS NULL OR n.stream < $3)
)
SELECT n.stream, last.version, last.position, last.recorded_at
  FROM names n
 CROSS JOIN LATERAL (
       SELECT e.version, e.position, e.recorded_at FROM events e WHERE e.stream = n.stream ORDER BY e.version DESC LIMIT 1
       ) last
 WHERE ($3::text IS NULL OR n.stream < $3) AND n.number <= $4
 ORDER BY n.number
