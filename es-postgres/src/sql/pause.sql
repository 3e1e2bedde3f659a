-- $1 reader, $2 actor, $3 reason. Locks: see pause_reader() in the migrations.
SELECT pause_reader($1, $2, $3) WHERE {here}
