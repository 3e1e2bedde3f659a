-- Deletes values that change, so that two documents can exchange theirs.
-- binds: ?1 generation, ?2 JSON array of [key, field, is unique, number or null, text]
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
DELETE FROM document_fields
WHERE generation = ?1
  AND (key, field) IN (
      SELECT former.key, former.field
      FROM json_each(?2) AS item
      CROSS JOIN document_fields AS former
              ON former.generation = ?1 AND former.key = item.value ->> 0 AND former.field = item.value ->> 1
      WHERE item.value ->> 3 IS NULL OR former.number <> item.value ->> 3 OR former.text <> item.value ->> 4)
