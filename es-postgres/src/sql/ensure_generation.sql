-- $1 projection, $2 version, $3 state, $4 definition, $5 fields. Locks: see ensure_generation() in the migrations.
SELECT id, version, other FROM ensure_generation($1, $2, $3, $4, $5::text::jsonb) WHERE {here}
