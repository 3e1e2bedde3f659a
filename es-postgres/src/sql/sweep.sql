-- Where the sweep goes on, or no row. $1 generation and $2 key from which on, $3 the most documents. Locks: see
-- sweep_generations() in the migrations.
SELECT next_generation, next_key FROM sweep_generations($1, $2, $3) WHERE {here}
