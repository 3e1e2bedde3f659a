-- Hides a generation from readers. Its documents are deleted later.
-- binds: ?1 generation, ?2 the state it must be in
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE generations SET state = 'retired' WHERE id = ?1 AND state = ?2
