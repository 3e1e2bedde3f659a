-- A verdict for each append of a batch; see append_batch() in the migrations for the arrays.
-- $1-$7 one entry an append, $8-$15 one entry an event.
-- Locks: the lane, until the end of the transaction. As a statement of its own that is the server's
-- time alone: no client can hold the lane across a round trip.
SELECT append, status, stream_version, log_position
  FROM append_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
