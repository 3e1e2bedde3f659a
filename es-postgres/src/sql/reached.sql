-- $1 generation. No locks.
SELECT coalesce((SELECT min(position) FROM checkpoints WHERE generation = $1), 0) WHERE {here}
