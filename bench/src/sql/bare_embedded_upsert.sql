-- ?1 JSON array of [key, document].
INSERT INTO documents (generation, key, document)
SELECT 1, item.value ->> 0, CAST(item.value ->> 1 AS BLOB) FROM json_each(?1) AS item WHERE true
ON CONFLICT (generation, key) DO UPDATE SET document = excluded.document
