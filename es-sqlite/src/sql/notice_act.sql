-- Lets the workers of a reader know: their next commit or renewal returns another number of acts.
-- binds: ?1 reader
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE checkpoints SET acts = acts + 1
WHERE reader IN (SELECT id FROM readers WHERE name = ?1 AND NOT is_retired)
