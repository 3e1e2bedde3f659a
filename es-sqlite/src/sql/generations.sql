-- One statement, one snapshot: a promotion falls before it or after it.
-- binds: ?1 projection
-- locks: none
SELECT generations.id,
       version,
       state,
       definition,
       withdrawn,
       (SELECT coalesce(min(position), 0) FROM checkpoints WHERE reader = generations.id) AS reached,
       (SELECT coalesce(max(position), 0) FROM checkpoints WHERE reader = generations.id) AS furthest
FROM generations
JOIN readers ON readers.id = generations.id
WHERE projection = ?1
