-- binds: ?1 projection, ?2 state
-- locks: none
SELECT id, version FROM generations WHERE projection = ?1 AND state = ?2
