-- $1 reader. No locks.
SELECT actor, reason, paused_at FROM paused_readers WHERE {here to read} AND reader = $1
