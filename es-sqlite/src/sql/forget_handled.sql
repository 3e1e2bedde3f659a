-- binds: ?1 reader, ?2 the time in us from which on messages are kept, ?3 how many are deleted at most
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
DELETE FROM inbox
WHERE reader = ?1
  AND message IN (SELECT message FROM inbox WHERE reader = ?1 AND handled_at_us <= ?2 ORDER BY handled_at_us LIMIT ?3)
