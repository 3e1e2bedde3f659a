-- $1 projection. No locks.
SELECT id, version FROM generations WHERE {here} AND projection = $1 AND state = 'serving'
