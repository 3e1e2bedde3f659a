-- A key without letters is freed by its worker, which may have parked another event meanwhile.
-- binds: ?1 reader, ?2 key
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE parked_keys SET is_retry_requested = 1
WHERE key = ?2
  AND generation IN (SELECT id FROM generations WHERE projection = ?1 AND state <> 'retired')
  AND NOT EXISTS (SELECT 1 FROM dead_letters
                  WHERE dead_letters.generation = parked_keys.generation AND dead_letters.key = parked_keys.key)
