-- $1 to $39 as in commit_fields.sql; $40 the reader whose documents an operator has mended, $41 who, $42 why.
-- Locks: the checkpoints of all generations of the name, in their order, since note_act() takes them all; then as commit_fields().
WITH locked AS MATERIALIZED (
    SELECT 1 FROM checkpoints c JOIN readers r ON r.id = c.reader
     WHERE r.name = $40 AND NOT r.is_retired ORDER BY c.reader, c.shard FOR UPDATE OF c
)
SELECT c.outcome, c.acts, c.taken_field, c.taken_key, c.taken_other,
       CASE WHEN c.outcome = 'committed'
            THEN (SELECT count(note_act('heal', $40, k.key, NULL, $41, $42)) FROM unnest($10::text[] || $12::text[]) k(key)) END
  FROM (SELECT count(*) FROM locked) l,
       LATERAL (SELECT * FROM commit_fields(
           $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
           $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39) WHERE l.count >= 0) c
 WHERE {here}
