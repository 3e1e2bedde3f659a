-- binds: ?1 reader, ?2 key
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE parked_keys SET is_retry_requested = 0 WHERE reader = ?1 AND key = ?2
