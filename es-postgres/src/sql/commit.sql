-- $1 reader, $2 shard, $3 fencing token, $4 position before, $5 position after, $6 last event, $7 its time, $8 cursor,
-- $9 for how long the lease goes on, $10 keys and $11 documents to write, $12 keys to delete.
-- Locks: see commit_changes() in the migrations.
SELECT commit_changes($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) WHERE {here}
