-- A letter has failed again.
-- binds: ?1 reader, ?2 key, ?3 position, ?4 cause
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE dead_letters SET cause = ?4, attempts = attempts + 1, revision = revision + 1
WHERE reader = ?1 AND key = ?2 AND position = ?3
