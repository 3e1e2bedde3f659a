-- Each step looks up the next name and skips the events in between: a page costs as much for streams of a million events.
-- binds: ?1 name with which to start, ?2 whether it is in the range, ?3 name before which to stop or null, ?4 the most rows
-- locks: none
WITH RECURSIVE names (stream, number) AS (
    SELECT iif(?2, (SELECT stream FROM events WHERE stream >= ?1 ORDER BY stream, version LIMIT 1),
                   (SELECT stream FROM events WHERE stream > ?1 ORDER BY stream, version LIMIT 1)), 1
    UNION ALL
    SELECT (SELECT stream FROM events WHERE events.stream > names.stream ORDER BY events.stream, version LIMIT 1), number + 1
    FROM names
    WHERE number < ?4 AND stream IS NOT NULL AND stream < coalesce(?3, x'') -- every text is less than any blob
)
SELECT events.stream, events.version, events.position, events.recorded_at_us
FROM names
CROSS JOIN events ON events.stream = names.stream
                 AND events.version = (SELECT max(version) FROM events WHERE stream = names.stream)
WHERE names.stream < coalesce(?3, x'') AND names.number <= ?4
ORDER BY names.number
