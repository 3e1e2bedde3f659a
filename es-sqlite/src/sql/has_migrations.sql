-- Whether the file has had migrations.
-- binds: none
-- locks: none
SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = '_sqlx_migrations')
