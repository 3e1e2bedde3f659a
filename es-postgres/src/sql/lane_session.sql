-- What the writer's connection has on top of session.sql. $1 lock_timeout and $2 statement_timeout in
-- milliseconds: nobody who holds the lane for long may block the writer for good. No locks.
-- Acknowledged means durable: a server or role that defaults to asynchronous commit is overruled, one
-- that waits for replicas is left to it.
-- Returns a mark by which later statements find out whether this is still the same session of the same server: a pooler
-- may have put another one in its place.
SELECT set_config('es.session', gen_random_uuid()::text, false),
       set_config('lock_timeout', $1, false),
       set_config('statement_timeout', $2, false),
       set_config('work_mem', '32MB', false),
       CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END
