-- A row if there is a reader of this name.
-- binds: ?1 reader
-- locks: none
SELECT 1 FROM readers WHERE name = ?1 AND NOT is_retired LIMIT 1
