-- binds: ?1 generation, ?2 JSON array of [key, start, length]; starts count from 1, ?3 all documents end to end
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
INSERT INTO documents (generation, key, document)
SELECT ?1, item.value ->> 0, substr(?3, item.value ->> 1, item.value ->> 2)
FROM json_each(?2) AS item
WHERE true -- without it, SQLite parses the ON as that of a join
ON CONFLICT (generation, key) DO UPDATE SET document = excluded.document
