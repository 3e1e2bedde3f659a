-- Deletes a letter that was handled again.
-- binds: ?1 reader, ?2 key, ?3 position
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
DELETE FROM dead_letters WHERE reader = ?1 AND key = ?2 AND position = ?3
