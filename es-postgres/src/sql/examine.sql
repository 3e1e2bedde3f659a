-- What the server says of itself, of this role and of this database. $1 schema. No locks.
-- The settings are those that a session has that sets nothing: the store's own sessions overrule some.
SELECT current_setting('server_version') AS server,
       clock_timestamp() AS now,
       pg_is_in_recovery() AS is_replica,
       current_user::text AS role,
       (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user) AS is_superuser,
       (SELECT pg_has_role(current_user, n.nspowner, 'MEMBER') FROM pg_namespace n WHERE n.nspname = $1) AS owns,
       has_table_privilege('events', 'SELECT') AS reads,
       has_table_privilege('events', 'INSERT') AS appends,
       has_table_privilege('checkpoints', 'UPDATE') AS keeps_read_models,
       (SELECT max(m.version) FROM _sqlx_migrations m) AS migration,
       pg_database_size(current_database()) AS bytes,
       (SELECT count(*) FROM pg_stat_activity a WHERE a.backend_type = 'client backend') AS connections,
       current_setting('max_connections')::bigint AS most_connections,
       (SELECT coalesce(array_agg(t.name ORDER BY t.name), '{}')
          FROM unnest(ARRAY['events_append_only', 'events_unchanging', 'event_tags_append_only']) t(name)
         WHERE NOT EXISTS (SELECT FROM pg_trigger g
                            WHERE g.tgrelid IN ('events'::regclass, 'event_tags'::regclass) AND g.tgname = t.name
                              AND g.tgenabled IN ('O', 'A'))) AS triggers_off,
       (SELECT s.reset_val FROM pg_settings s WHERE s.name = 'fsync') AS fsync,
       (SELECT s.reset_val FROM pg_settings s WHERE s.name = 'full_page_writes') AS full_page_writes,
       (SELECT s.reset_val FROM pg_settings s WHERE s.name = 'synchronous_commit') AS synchronous_commit,
       (SELECT s.reset_val FROM pg_settings s WHERE s.name = 'default_transaction_read_only') AS read_only,
       (SELECT s.reset_val FROM pg_settings s WHERE s.name = 'session_replication_role') AS replication_role
 WHERE {here to read}
