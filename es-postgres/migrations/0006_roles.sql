-- Lets a_role do what an application does through the store, in this schema, and nothing else: append,
-- import and read; keep snapshots and read models. It cannot change, delete or truncate what is recorded
-- (events, and the commands by which a retry is known), nor disable a trigger, nor replace a function, nor
-- migrate. Whatever the role was granted in this schema before is taken back.
--
-- To be called by the owner of the schema, and again after a migration that adds a table. Tables are
-- granted by rule, so that a table without a word here can be read and added to, but not changed.
--
-- Deleting old rows of commands is maintenance: it stays with the owner, since a retry that comes after it
-- is written twice.
--
-- Locks: rows of the catalogue; concurrent calls wait for each other or fail with "tuple concurrently
-- updated" and may be repeated.
CREATE FUNCTION grant_application_in(v_schema name, a_role name) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_table record;
BEGIN
    -- An owner cannot be denied anything, and taking back what it has would lock out the owner.
    IF EXISTS (SELECT FROM pg_class c
                WHERE c.relnamespace = quote_ident(v_schema)::regnamespace AND pg_has_role(a_role, c.relowner, 'MEMBER')) THEN
        RAISE EXCEPTION 'role % owns tables of schema % or is a superuser', a_role, v_schema
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    EXECUTE format('REVOKE ALL ON SCHEMA %I FROM %I', v_schema, a_role);
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM %I', v_schema, a_role);
    EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA %I FROM %I', v_schema, a_role);

    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', v_schema, a_role);
    EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA %I TO %I', v_schema, a_role);
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %1$I.grant_application(name), %1$I.grant_application_in(name, name) FROM %2$I',
        v_schema, a_role);
    FOR v_table IN SELECT c.relname, c.relkind FROM pg_class c
                    WHERE c.relnamespace = quote_ident(v_schema)::regnamespace AND c.relkind IN ('r', 'p', 'v')
    LOOP
        EXECUTE format('GRANT %s ON %I.%I TO %I',
            CASE WHEN v_table.relkind = 'v' OR v_table.relname IN ('_sqlx_migrations', 'store_id') THEN 'SELECT'
                 WHEN v_table.relname IN ('readers', 'generations', 'checkpoints', 'documents', 'document_fields', 'parked_keys', 'dead_letters', 'stops', 'paused_readers', 'inbox')
                 THEN 'SELECT, INSERT, UPDATE, DELETE'
                 WHEN v_table.relname IN ('snapshots', 'imports', 'amendments') THEN 'SELECT, INSERT, UPDATE'
                 ELSE 'SELECT, INSERT' END,
            v_schema, v_table.relname, a_role);
    END LOOP;
END
$$;

-- What the owner calls. Its body is bound to the table and not to a name, so it finds its schema whatever that is called now.
CREATE FUNCTION grant_application(a_role name) RETURNS void LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT grant_application_in(n.nspname, a_role)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = 'events'::regclass;
END;

-- A role can only grant what is its own, so this only spares others the error message.
REVOKE EXECUTE ON FUNCTION grant_application(name), grant_application_in(name, name) FROM PUBLIC;
