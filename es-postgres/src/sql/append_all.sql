-- The last position before a batch of which everything was written, or null; see append_all() in the migrations.
-- $1-$3 streams to look at, $4-$10 the events, $11-$15 commands. Locks: the lane, as in append_batch.sql.
SELECT append_all($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
 WHERE {here}
