-- binds: none
-- locks: none
SELECT id FROM readers WHERE is_retired ORDER BY id
