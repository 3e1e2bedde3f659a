-- No binds. Locks: see sweep_generations() in the migrations.
SELECT sweep_generations() WHERE {here}
