-- $1 the building generation. Locks: see discard_generation() in the migrations.
SELECT discard_generation($1) WHERE {here}
