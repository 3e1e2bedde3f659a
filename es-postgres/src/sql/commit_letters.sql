-- $1 to $12 as in commit.sql; $13 to $24 new letters: key, position, event, stream, version, type, schema version, time, payload,
-- metadata, cause, attempts; $25 the key of letters that were handled again, $26 their positions, $27 their revisions, $28 the one
-- that failed, $29 why, $30 whether these were all.
-- Locks: see commit_letters() in the migrations.
SELECT outcome, acts
  FROM commit_letters($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
                      $24, $25, $26, $27, $28, $29, $30)
 WHERE {here}
