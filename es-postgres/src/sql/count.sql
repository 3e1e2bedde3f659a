-- count
-- $1 to $9 as in find.sql. No locks; one snapshot, as in get.sql. No row where none serves.
SELECT g.id, g.version, coalesce(g.fields ->> $2 = $3, false),
       (SELECT count(*)
          FROM document_fields
         WHERE generation = g.id AND field = $2 AND key >= '' AND (number, text, key) > ($4, $5, $6)
          AND (number, text, key) < ($7, $8, $9))
  FROM generations g
 WHERE {here to read} AND g.projection = $1 AND g.state = 'serving'
