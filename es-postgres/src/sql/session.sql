-- Makes a fresh connection one of ours. $1 search path, $2 statement_timeout in
-- milliseconds (null leaves it to the server and the role). No locks.
-- Plans are made once and must not depend on how full the tables were at that moment: a plan made for an
-- empty table would keep its sequential scan until the next ANALYZE. Every statement here has its index, and what it looks up
-- row by row stands before an OFFSET 0, without which the planner may read all of a small table instead, for a hash.
SELECT set_config('search_path', $1, false),
       set_config('default_transaction_isolation', 'read committed', false),
       set_config('plan_cache_mode', 'force_generic_plan', false),
       set_config('enable_seqscan', 'off', false),
       set_config('enable_bitmapscan', 'off', false),
       set_config('jit', 'off', false),
       CASE WHEN $2::text IS NOT NULL THEN set_config('statement_timeout', $2, false) END
