-- Takes a generation away from readers; what it holds is swept later.
-- binds: ?1 generation, ?2 the state it must be in
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE generations SET state = 'retired' WHERE id = ?1 AND state = ?2
