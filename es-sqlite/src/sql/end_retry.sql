-- binds: ?1 generation, ?2 key
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE parked_keys SET is_retry_requested = 0 WHERE generation = ?1 AND key = ?2
