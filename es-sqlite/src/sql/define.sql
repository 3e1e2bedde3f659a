-- binds: ?1 generation, ?2 definition
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE generations SET definition = ?2 WHERE id = ?1 AND definition IS NULL
