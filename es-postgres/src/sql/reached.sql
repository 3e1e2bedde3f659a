-- $1 generation. No locks.
SELECT coalesce(min(position), 0) FROM checkpoints WHERE generation = $1
