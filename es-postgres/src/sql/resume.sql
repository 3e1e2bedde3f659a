-- $1 reader, $2 actor, $3 reason. Locks: see resume_reader() in the migrations.
SELECT resume_reader($1, $2, $3) WHERE {here}
