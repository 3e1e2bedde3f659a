-- $1 to $30 as in commit_letters.sql; $31 messages that were handled, $32 for how long they are known, $33 how many older ones are
-- forgotten at most.
-- Locks: see commit_inbox() in the migrations.
SELECT outcome, acts, known
  FROM commit_inbox($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
                    $24, $25, $26, $27, $28, $29, $30, $31, $32, $33)
 WHERE {here}
