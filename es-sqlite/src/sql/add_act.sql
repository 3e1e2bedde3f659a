-- binds: ?1 now in us, ?2 actor, ?3 reason, ?4 what, ?5 reader, ?6 key or shard, ?7 position
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
INSERT INTO acts (acted_at_us, actor, reason, what, reader, target, position) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
