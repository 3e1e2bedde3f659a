-- binds: ?1 projection, ?2 version, ?3 state
-- locks: the caller holds the write lock (BEGIN IMMEDIATE); a unique index allows one per state
INSERT INTO generations (projection, version, state) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING
