-- generations
-- $1 projection. No locks. One statement, one snapshot: a promotion falls before it or after it.
SELECT g.id, g.version, g.state, r.definition, g.withdrawn, c.reached, c.furthest
  FROM generations g
  JOIN readers r ON r.id = g.id
 CROSS JOIN LATERAL (
       SELECT coalesce(min(position), 0) AS reached, coalesce(max(position), 0) AS furthest
         FROM checkpoints WHERE reader = g.id
       ) c
 WHERE {here} AND g.projection = $1
