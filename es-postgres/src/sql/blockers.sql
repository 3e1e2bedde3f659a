-- Who keeps the session $1 (its process on the server) waiting for a lock. No locks.
-- Of the sessions of other roles the server tells the times only to those who may see them (pg_read_all_stats).
SELECT a.pid, coalesce(a.application_name, ''), coalesce(a.usename::text, ''),
       coalesce(a.xact_start, a.state_change, a.backend_start)::text
  FROM unnest(pg_blocking_pids($1)) b(pid) JOIN pg_stat_activity a ON a.pid = b.pid
 WHERE {here}
 ORDER BY a.pid
