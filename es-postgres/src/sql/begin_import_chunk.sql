-- $1 name, $2 events before the chunk, $3 events of the chunk, $4 the last one's id, $5 after which
-- position the client does not know what was written, $6 the last one's time.
-- Locks: see begin_import_chunk() in the migrations: the append lock until the end of the transaction.
SELECT imported, log_head, changed_streams, changed_versions FROM begin_import_chunk($1, $2, $3, $4, $5, $6)
 WHERE {here}
