-- $1 reader, $2 key, $3 position, $4 payload, $5 actor, $6 reason. Locks: see edit_letter() in the migrations.
SELECT edit_letter($1, $2, $3, $4, $5, $6) WHERE {here}
