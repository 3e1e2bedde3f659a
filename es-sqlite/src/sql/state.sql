-- binds: ?1 generation
-- locks: none
SELECT state FROM generations WHERE id = ?1
