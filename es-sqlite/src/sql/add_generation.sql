-- Makes a reader a generation.
-- binds: ?1 reader, ?2 projection, ?3 version, ?4 state, ?5 JSON object of fields
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
INSERT INTO generations (id, projection, version, state, fields) VALUES (?1, ?2, ?3, ?4, ?5)
