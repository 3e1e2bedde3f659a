-- $1 before which number, or null, $2 at most how many. No locks.
SELECT id, acted_at, actor, reason, what, reader, target, position FROM acts
 WHERE {here to read} AND ($1::bigint IS NULL OR id < $1)
 ORDER BY id DESC LIMIT $2
