-- One statement, one snapshot: a promotion falls before it or after it.
-- binds: ?1 projection
-- locks: none
SELECT id,
       version,
       state,
       definition,
       withdrawn,
       (SELECT coalesce(min(position), 0) FROM checkpoints WHERE generation = generations.id) AS reached,
       (SELECT coalesce(max(position), 0) FROM checkpoints WHERE generation = generations.id) AS furthest
FROM generations
WHERE projection = ?1 AND state <> 'retired'
