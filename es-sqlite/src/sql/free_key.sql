-- A key without letters is no longer parked.
-- binds: ?1 generation, ?2 key
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
DELETE FROM parked_keys
WHERE generation = ?1 AND key = ?2
  AND NOT EXISTS (SELECT 1 FROM dead_letters WHERE generation = ?1 AND key = ?2)
