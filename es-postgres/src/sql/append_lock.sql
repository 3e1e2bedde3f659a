-- The sessions that hold the append lock of the schema $1, or wait for it. No locks.
-- A prepared transaction has no session. Of the sessions of other roles the server tells the times only to those who may see
-- them (pg_read_all_stats).
SELECT l.granted, l.pid, coalesce(a.application_name, '') AS application, coalesce(a.usename::text, '') AS role,
       coalesce(a.state, 'unknown') AS state,
       extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, a.state_change))::float8 AS seconds
  FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE {here to read} AND l.locktype = 'advisory' AND l.classid = 25971 AND l.objid = $1::regnamespace::oid AND l.objsubid = 2
   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
 ORDER BY l.granted DESC, seconds DESC NULLS LAST
