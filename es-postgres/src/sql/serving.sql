-- $1 projection. No locks.
SELECT id, version FROM generations WHERE projection = $1 AND state = 'serving'
