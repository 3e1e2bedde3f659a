-- binds: ?1 generation, ?2 JSON array of keys
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
DELETE FROM documents WHERE generation = ?1 AND key IN (SELECT value FROM json_each(?2))
