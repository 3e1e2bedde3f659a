-- The tables whose names begin with a prefix, those that were made last first, without the prefix.
-- binds: ?1 prefix
-- locks: none
SELECT substr(name, length(?1) + 1) FROM sqlite_schema
WHERE type = 'table' AND substr(name, 1, length(?1)) = ?1 ORDER BY rowid DESC
