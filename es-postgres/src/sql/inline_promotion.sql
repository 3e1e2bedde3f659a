-- $1 the projection of which a generation is folded and promoted.
-- Locks: after the append lock, its readers and their checkpoints; see lock_generations() in the migrations.
SELECT lock_generations($1) WHERE {here}
