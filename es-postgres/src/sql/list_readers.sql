-- All readers, a row for each of their checkpoints; one row without a shard where there is none. No binds, no locks.
SELECT g.id, g.projection, g.version, g.state, g.definition, c.shard, c.position, c.recorded_at,
       CASE WHEN c.lease_until > clock_timestamp() THEN c.owner END AS owner, c.fencing_token, c.leased_at
  FROM generations g LEFT JOIN checkpoints c ON c.generation = g.id
 WHERE {here to read} AND g.state <> 'retired'
 ORDER BY g.projection, g.state = 'building', g.id
