-- A first pause stays.
-- binds: ?1 reader, ?2 actor, ?3 reason, ?4 now in us
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
INSERT INTO paused_readers (reader, actor, reason, paused_at_us) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING
