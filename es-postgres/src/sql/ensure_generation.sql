-- $1 projection, $2 version, $3 state. Locks: see ensure_generation() in the migrations.
SELECT id, version FROM ensure_generation($1, $2, $3) WHERE {here}
