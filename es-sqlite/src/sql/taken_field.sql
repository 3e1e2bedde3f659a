-- A value of a unique field that another document has and keeps.
-- binds: ?1 generation, ?2 JSON array of [key, field, number, text] that no other document may have, ?3 JSON array of the changes,
--        as in delete_fields.sql
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
SELECT item.value ->> 1 AS field, item.value ->> 0 AS key, other.key AS other
FROM json_each(?2) AS item
CROSS JOIN document_fields AS other
        ON other.generation = ?1
       AND other.field = item.value ->> 1
       AND other.number = item.value ->> 2
       AND other.text = item.value ->> 3
       AND other.key <> item.value ->> 0
WHERE (other.key, other.field) NOT IN (SELECT changed.value ->> 0, changed.value ->> 1 FROM json_each(?3) AS changed)
ORDER BY item.key
LIMIT 1
