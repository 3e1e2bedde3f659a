-- The last position before a batch of which everything was written and the time of its events, or null; see append_all() in
-- the migrations. $1-$4 streams to look at, $5-$11 the events, $12-$16 commands. Locks: the append lock, as in append_batch.sql.
SELECT append_all($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
 WHERE {here}
