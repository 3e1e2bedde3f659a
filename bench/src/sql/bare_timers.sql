-- $1 at most so many.
DELETE FROM timers WHERE id IN (SELECT id FROM timers WHERE due <= now() ORDER BY due LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING id
