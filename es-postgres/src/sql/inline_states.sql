-- $1 projections, $2 the state of their generations, $3 the shard: what is found of read models that are folded with an append; see
-- inline_states() in the migrations.
-- Locks: the checkpoints' rows, in the order of their readers: after the append lock, and before the documents.
SELECT id, projection, version, definition, is_detached, fencing_token, reached, event_id, recorded_at, cursor, is_leased
  FROM inline_states($1, $2, $3)
 WHERE {here}
