-- binds: ?1 generation, ?2 the prefix of its tables, ?3 the prefix of the public names
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
INSERT INTO table_generations (generation, prefix, public_prefix) VALUES (?1, ?2, ?3)
