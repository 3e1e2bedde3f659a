-- All readers, a row for each of their checkpoints; one row without a shard where there is none. No binds, no locks.
SELECT r.id, r.name, g.version, g.state, r.definition, c.shard, c.position, c.recorded_at,
       CASE WHEN c.lease_until > clock_timestamp() THEN c.owner END AS owner, c.fencing_token, c.leased_at
  FROM readers r LEFT JOIN generations g ON g.id = r.id LEFT JOIN checkpoints c ON c.reader = r.id
 WHERE {here to read} AND NOT r.is_retired
 ORDER BY r.name, g.state = 'building', r.id
