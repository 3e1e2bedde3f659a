-- The turn of an append, given up at once. No binds. Locks: the append lock, until the end of the statement. Nothing is written, so
-- no writer waits for a commit of this session.
SELECT take_append_lock() WHERE {here}
