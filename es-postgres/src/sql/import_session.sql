-- What an import's connection has on top of session.sql. No binds, no locks.
-- An import holds the append lock across round trips. A client that dies is noticed at once; one that vanishes
-- without a word only if the server asks whether it is still there, which by default it does after hours.
SELECT set_config('idle_in_transaction_session_timeout', '30s', false),
       set_config('tcp_keepalives_idle', '5', false),
       set_config('tcp_keepalives_interval', '2', false),
       set_config('tcp_keepalives_count', '5', false)
 WHERE {here}
