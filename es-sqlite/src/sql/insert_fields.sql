-- binds: as in delete_fields.sql
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
INSERT INTO document_fields (generation, key, field, is_unique, number, text)
SELECT ?1, item.value ->> 0, item.value ->> 1, item.value ->> 2, item.value ->> 3, item.value ->> 4
FROM json_each(?2) AS item
WHERE item.value ->> 3 IS NOT NULL
ON CONFLICT (generation, key, field) DO NOTHING
