-- binds: ?1 generation
-- locks: none
SELECT coalesce(min(position), 0) FROM checkpoints WHERE generation = ?1
