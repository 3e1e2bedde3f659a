-- Which store this is. No locks.
SELECT id FROM store_id WHERE {here}
