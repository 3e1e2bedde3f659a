-- binds: ?1 reader, ?2 key, ?3 position
-- locks: none
SELECT revision FROM dead_letters WHERE reader = ?1 AND key = ?2 AND position = ?3
