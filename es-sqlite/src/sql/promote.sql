-- binds: ?1 building generation, ?2 the newest version that is withdrawn with this, or 0
-- locks: the caller holds the write lock (BEGIN IMMEDIATE) and has retired the serving generation
UPDATE generations SET state = 'serving', withdrawn = ?2 WHERE id = ?1
