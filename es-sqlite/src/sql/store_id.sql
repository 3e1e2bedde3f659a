-- Which store this is.
SELECT id FROM store_id
