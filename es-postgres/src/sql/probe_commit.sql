-- A commit of a few bytes of the write-ahead log, which belong to no table. It is durable as any other when it returns. No binds. No
-- locks.
SELECT pg_catalog.pg_logical_emit_message(true, 'evenfold', '') WHERE {here}
