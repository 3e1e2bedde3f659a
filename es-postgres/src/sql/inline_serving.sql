-- $1 projections: those of which a generation serves. No locks.
SELECT g.id, g.projection, g.version, r.definition, false
  FROM generations g JOIN readers r ON r.id = g.id
 WHERE {here to read} AND g.projection = ANY ($1) AND g.state = 'serving'
