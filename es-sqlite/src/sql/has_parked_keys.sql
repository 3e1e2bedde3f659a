-- A row if a key of the reader is parked.
-- binds: ?1 reader
-- locks: none
SELECT 1 FROM parked_keys WHERE reader = ?1 LIMIT 1
