-- Which migrations the file has had.
-- binds: none
-- locks: none
SELECT version, success, checksum FROM _sqlx_migrations ORDER BY version
