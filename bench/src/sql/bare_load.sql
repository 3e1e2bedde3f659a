-- $1 stream.
SELECT payload FROM events WHERE stream = $1 ORDER BY version
