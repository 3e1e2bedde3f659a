-- $1 generation, $2 shard, $3 token, $4 position before, $5 position after, $6 last event, $7 cursor,
-- $8 for how long the lease goes on, $9 keys and $10 documents to write, $11 keys to delete.
-- Locks: see commit_changes() in the migrations.
SELECT commit_changes($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
