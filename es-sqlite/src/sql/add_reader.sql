-- binds: ?1 name, ?2 definition
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
INSERT INTO readers (name, definition) VALUES (?1, ?2) RETURNING id
