-- $1 name, $2 definition. Locks: see ensure_reader() in the migrations.
SELECT id, definition FROM ensure_reader($1, $2) WHERE {here}
