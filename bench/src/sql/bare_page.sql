-- $1 after which position.
SELECT position, substr(stream, 9), payload FROM events WHERE position > $1 ORDER BY position LIMIT 1000
