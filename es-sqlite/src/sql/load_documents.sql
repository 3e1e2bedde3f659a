-- binds: ?1 generation, ?2 JSON array of keys
-- locks: none
SELECT documents.document
FROM json_each(?2) AS item
LEFT JOIN documents ON documents.generation = ?1 AND documents.key = item.value
ORDER BY item.key
