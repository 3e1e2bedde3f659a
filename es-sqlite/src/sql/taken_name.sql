-- A row if a name is not free for a public view: something else has it, or a table of another projection leads to it.
-- binds: ?1 name, ?2 the prefix of the public names of the projection
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
WITH leads AS (
    SELECT g.public_prefix = ?2 AS is_own
    FROM table_generations g
    JOIN sqlite_schema t ON t.type = 'table' AND t.name = g.prefix || substr(?1, length(g.public_prefix) + 1)
    WHERE substr(?1, 1, length(g.public_prefix)) = g.public_prefix
)
SELECT 1
WHERE EXISTS (SELECT 1 FROM leads WHERE NOT is_own)
   OR EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?1 AND type <> 'view')
