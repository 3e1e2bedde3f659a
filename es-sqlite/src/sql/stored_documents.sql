-- A row a key, in their order: the document, and a JSON array of [field, number, text] of the values that it is found by.
-- binds: ?1 generation, ?2 JSON array of keys
-- locks: none
SELECT documents.document AS document,
       (SELECT json_group_array(json_array(found.field, found.number, found.text))
        FROM document_fields AS found
        WHERE found.generation = ?1 AND found.key = item.value) AS fields
FROM json_each(?2) AS item
LEFT JOIN documents ON documents.generation = ?1 AND documents.key = item.value
ORDER BY item.key
