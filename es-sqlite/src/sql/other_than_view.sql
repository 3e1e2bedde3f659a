-- binds: ?1 name
-- locks: none
SELECT 1 FROM sqlite_schema WHERE name = ?1 AND type <> 'view'
