-- $1 generation. No locks.
SELECT state FROM generations WHERE id = $1 AND state <> 'retired'
