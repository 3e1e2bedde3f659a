-- $1 the building generation. Locks: see promote_generation() in the migrations.
SELECT outcome, building, serving FROM promote_generation($1)
