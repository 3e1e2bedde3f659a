-- The last position before a batch of which everything was written, the time of its events and the versions that were looked
-- up, or null; see append_all() in the migrations. $1-$4 streams to check, $5 streams to look up, $6-$13 the events and their versions, $14-$17
-- commands, $18-$20 tags, $21-$23 conditions. Locks: the append lock, as in append_batch.sql.
SELECT append_all($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)
 WHERE {here}
