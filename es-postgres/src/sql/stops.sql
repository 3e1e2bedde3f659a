-- $1 reader. No locks.
SELECT s.generation, s.shard, s.position, s.event_id, s.recorded_at, s.cause, s.stopped_at
  FROM generations g JOIN stops s ON s.generation = g.id
  JOIN checkpoints c ON c.generation = s.generation AND c.shard = s.shard
 WHERE {here to read} AND g.projection = $1 AND g.state <> 'retired' AND s.position > c.position
 ORDER BY s.generation, s.shard
