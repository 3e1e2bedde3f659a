-- promote
-- $1 the building generation, $2 whether on purpose. Locks: see promote_generation() in the migrations.
SELECT outcome, building, serving FROM promote_generation($1, $2) WHERE {here}
