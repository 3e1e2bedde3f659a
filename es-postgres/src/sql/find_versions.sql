-- $1 streams. The head of the log, and the versions of those that exist. No locks; one statement, so all
-- are of one snapshot, and what is not in these versions comes after this head.
-- Those that do not exist, most of a history's, cost next to nothing: the index is walked once for all
-- first versions.
SELECT (SELECT coalesce(max(e.position), 0) FROM events e), array_agg(f.stream), array_agg(f.version)
  FROM (SELECT e.stream, (SELECT l.version FROM events l WHERE l.stream = e.stream
                           ORDER BY l.version DESC LIMIT 1) AS version
          FROM events e
         WHERE e.stream = ANY ($1) AND e.version = 1) f
HAVING {here}
