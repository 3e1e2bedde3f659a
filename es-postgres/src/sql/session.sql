-- Makes a fresh connection one of ours, and tells its process on the server and the oid of the schema. One statement of the
-- simple protocol, since a pooler in transaction mode may let another session prepare what this one would execute.
-- {path} search path, which ends in the session's mark, {schema} its first part, {statement_timeout} and {lock_timeout} in milliseconds, 0 for none. No locks.
--
-- Whatever a statement rests on is set here, so that no default of the role, the database or the server can change what it
-- does. Not default_transaction_read_only: that is how an operator stops writes, and is treated as a replica is.
-- Acknowledged means durable: a default of asynchronous commit is overruled; how many replicas to wait for is the server's.
-- Plans are made once and must not depend on how full the tables were at that moment: a plan made for an
-- empty table would keep its sequential scan until the next ANALYZE. Every statement here has its index, and what it looks up
-- row by row stands before an OFFSET 0, without which the planner may read all of a small table instead, for a hash.
SELECT pg_backend_pid() AS process,
       (SELECT oid::bigint FROM pg_catalog.pg_namespace WHERE nspname = '{schema}') AS schema,
       set_config('search_path', '{path}', false),
       set_config('statement_timeout', '{statement_timeout}', false),
       set_config('lock_timeout', '{lock_timeout}', false),
       set_config('idle_in_transaction_session_timeout', '0', false),
       set_config('idle_session_timeout', '0', false),
       CASE WHEN current_setting('server_version_num')::int >= 170000 THEN set_config('transaction_timeout', '0', false) END,
       CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END,
       set_config('default_transaction_isolation', 'read committed', false),
       set_config('default_transaction_deferrable', 'off', false),
       set_config('standard_conforming_strings', 'on', false),
       set_config('transform_null_equals', 'off', false),
       set_config('exit_on_error', 'off', false),
       set_config('plpgsql.extra_errors', 'none', false),
       set_config('plpgsql.extra_warnings', 'none', false),
       set_config('client_min_messages', 'warning', false),
       set_config('work_mem', '32MB', false),
       set_config('plan_cache_mode', 'force_generic_plan', false),
       set_config('enable_seqscan', 'off', false),
       set_config('enable_bitmapscan', 'off', false),
       set_config('enable_indexscan', 'on', false),
       set_config('enable_indexonlyscan', 'on', false),
       set_config('enable_nestloop', 'on', false),
       set_config('jit', 'off', false)
