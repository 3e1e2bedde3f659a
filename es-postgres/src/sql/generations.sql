-- generations
-- $1 projection. No locks. One statement, one snapshot: a promotion falls before it or after it.
SELECT g.id, g.version, g.state, g.definition, g.withdrawn, c.reached, c.furthest
  FROM generations g
 CROSS JOIN LATERAL (
       SELECT coalesce(min(position), 0) AS reached, coalesce(max(position), 0) AS furthest
         FROM checkpoints WHERE generation = g.id
       ) c
 WHERE {here} AND g.projection = $1 AND g.state <> 'retired'
