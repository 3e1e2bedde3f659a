-- What becomes of each entry of a batch; see append_batch() in the migrations for the arrays.
-- $1-$9 the entries, $10-$12 which entry each event and item belongs to, $13-$18 the events, $19-$22 commands, $23-$25 tags,
-- $26-$28 conditions.
-- Locks: the append lock, until the end of the transaction. As a statement of its own that is the server's
-- time alone: no client can hold the append lock across a round trip. Where read models are folded with the batch, the server waits
-- for at most two seconds for the client's next statement, and then takes it all back.
SELECT wave, log_base, versions, places, f_append, f_status, f_version, f_position
  FROM append_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                    $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28)
 WHERE {here}
