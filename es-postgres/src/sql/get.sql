-- get
-- $1 projection, $2 key. No locks. One statement, one snapshot: all of the old generation or all of the
-- new one, whatever is promoted meanwhile. No row where none serves.
SELECT g.id, g.version, (SELECT document FROM documents WHERE generation = g.id AND key = $2)
  FROM generations g
 WHERE {here to read} AND g.projection = $1 AND g.state = 'serving'
