-- $1 what, $2 reader, $3 actor, $4 reason. Locks: see note_act() in the migrations.
SELECT note_act($1, $2, NULL, NULL, $3, $4) WHERE {here}
