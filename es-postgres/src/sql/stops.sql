-- $1 reader. No locks.
SELECT s.reader, s.shard, s.position, s.event_id, s.recorded_at, s.cause, s.stopped_at
  FROM readers r JOIN stops s ON s.reader = r.id
  JOIN checkpoints c ON c.reader = s.reader AND c.shard = s.shard
 WHERE {here to read} AND r.name = $1 AND NOT r.is_retired AND s.position > c.position
 ORDER BY s.reader, s.shard
