-- $1 generation. No locks.
SELECT state FROM generations WHERE {here} AND id = $1
