-- $1-$7 one entry an event, as in bare_batch.sql. Locks: the one of append_locked(), until the end of the statement's
-- own transaction.
SELECT event_id, position FROM append_locked($1, $2, $3, $4, $5, $6, $7)
