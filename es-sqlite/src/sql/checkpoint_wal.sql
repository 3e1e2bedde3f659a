-- Moves the write-ahead log into the database file and empties it.
-- binds: none
-- locks: waits for readers as long as busy_timeout says
PRAGMA wal_checkpoint(TRUNCATE)
