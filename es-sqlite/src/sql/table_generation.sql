-- binds: ?1 generation
-- locks: none
SELECT prefix, public_prefix FROM table_generations WHERE generation = ?1
