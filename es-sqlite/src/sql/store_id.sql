-- The identity of this store.
SELECT id FROM store_id
