-- $1 reader, $2 key, $3 actor, $4 reason. Locks: see request_retry() in the migrations.
SELECT request_retry($1, $2, $3, $4) WHERE {here}
