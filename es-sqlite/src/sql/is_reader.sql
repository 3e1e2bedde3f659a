-- A row if there is a reader of this name.
-- binds: ?1 reader
-- locks: none
SELECT 1 FROM generations WHERE projection = ?1 AND state <> 'retired' LIMIT 1
