-- What becomes of the only request of a batch, if its events are large; see append_large() in the migrations.
-- Parameters and results as in append_batch.sql. Locks: none while it writes the events, then the append lock, until the end of
-- the transaction.
SELECT wave, log_base, versions, places, f_append, f_status, f_version, f_position
  FROM append_large($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                    $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28)
 WHERE {here}
