-- What operators did, the latest first.
-- binds: ?1 before which number, or null, ?2 the most rows
-- locks: none
SELECT id, acted_at_us, actor, reason, what, reader, target, position
FROM acts
WHERE ?1 IS NULL OR id < ?1
ORDER BY id DESC
LIMIT ?2
