-- A further part of a commit, in its transaction, which the lease does not survive without it: $1 reader, $2 shard, $3 for how long
-- the lease goes on, $4 keys and $5 documents to write.
-- Locks: the checkpoint's row, which the transaction has, and see write_documents() in the migrations.
WITH prolonged AS (
    UPDATE checkpoints c SET lease_until = clock_timestamp() + $3 WHERE c.reader = $1 AND c.shard = $2 AND {here}
    RETURNING c.reader
)
SELECT write_documents(p.reader, $4, $5) FROM prolonged p
