-- No binds. Locks: the append lock, until the end of the transaction.
SELECT take_append_lock() WHERE {here}
