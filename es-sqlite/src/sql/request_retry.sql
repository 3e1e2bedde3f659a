-- binds: ?1 reader, ?2 key
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE parked_keys SET is_retry_requested = 1
WHERE key = ?2 AND reader IN (SELECT id FROM readers WHERE name = ?1 AND NOT is_retired)
