-- $1 to $30 as in commit_letters.sql; $31 to $35 the fields of the documents: key, field, whether it is unique, number or null,
-- text; $36 to $39 values between two events: key, field, number, text.
-- Locks: see commit_fields() in the migrations.
SELECT outcome, acts, taken_field, taken_key, taken_other
  FROM commit_fields($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
                     $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35,
                     $36, $37, $38, $39)
 WHERE {here}
