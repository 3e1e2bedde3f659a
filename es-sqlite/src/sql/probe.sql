-- Writes what is there already: a commit of one page, which is synced as any other.
UPDATE store_id SET id = id
