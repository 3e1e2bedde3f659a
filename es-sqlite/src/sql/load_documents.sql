-- The documents under the first keys, up to the one that reaches the budget. Their lengths are summed up first: SQLite
-- reads a length without reading the document.
-- binds: ?1 generation, ?2 JSON array of keys, ?3 budget in bytes
-- locks: none
WITH sized AS (
    SELECT item.key AS place, documents.rowid AS found,
           sum(length(documents.document)) OVER (
               ORDER BY item.key ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
           ) AS before
    FROM json_each(?2) AS item
    LEFT JOIN documents ON documents.generation = ?1 AND documents.key = item.value
)
SELECT documents.document
FROM sized
LEFT JOIN documents ON documents.rowid = sized.found
WHERE coalesce(sized.before, 0) < ?3
ORDER BY sized.place
