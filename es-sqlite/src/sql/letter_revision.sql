-- binds: ?1 generation, ?2 key, ?3 position
-- locks: none
SELECT revision FROM dead_letters WHERE generation = ?1 AND key = ?2 AND position = ?3
