-- binds: ?1 generation, ?2 definition, ?3 JSON object of fields
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE generations SET definition = ?2, fields = ?3 WHERE id = ?1 AND definition IS NULL
