-- A key without letters is freed by its worker, which may have parked another event meanwhile.
-- binds: ?1 reader, ?2 key
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE parked_keys SET is_retry_requested = 1
WHERE key = ?2
  AND reader IN (SELECT id FROM readers WHERE name = ?1 AND NOT is_retired)
  AND NOT EXISTS (SELECT 1 FROM dead_letters
                  WHERE dead_letters.reader = parked_keys.reader AND dead_letters.key = parked_keys.key)
