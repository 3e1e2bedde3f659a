-- ?1 after which position.
SELECT position, stream, payload FROM events WHERE position > ?1 ORDER BY position LIMIT 1000
