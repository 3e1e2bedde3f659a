-- A key without letters is no longer parked.
-- binds: ?1 reader, ?2 key
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
DELETE FROM parked_keys
WHERE reader = ?1 AND key = ?2
  AND NOT EXISTS (SELECT 1 FROM dead_letters WHERE reader = ?1 AND key = ?2)
