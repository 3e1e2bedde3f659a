-- $1 reader, $2 shard, $3 position, $4 event, $5 actor, $6 reason. Locks: see skip_event() in the migrations.
SELECT skip_event($1, $2, $3, $4, $5, $6) WHERE {here}
