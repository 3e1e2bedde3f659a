-- Which migrations the schema has had. No binds, no locks. Fails where there is no such table, or where it
-- is not ours to read.
SELECT version, success, checksum FROM _sqlx_migrations ORDER BY version
