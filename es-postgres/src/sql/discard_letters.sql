-- $1 reader, $2 key, $3 position or null, $4 actor, $5 reason. Locks: see discard_letters() in the migrations.
SELECT discard_letters($1, $2, $3, $4, $5) WHERE {here}
