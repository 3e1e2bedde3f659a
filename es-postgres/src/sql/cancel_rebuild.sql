-- $1 reader, $2 actor, $3 reason. Locks: see cancel_rebuild() in the migrations.
SELECT cancel_rebuild($1, $2, $3) WHERE {here}
