-- $1 reader. No locks.
SELECT k.generation, k.shard, k.key, k.is_retry_requested,
       (SELECT count(*) FROM dead_letters l WHERE l.generation = k.generation AND l.key = k.key)
  FROM generations g JOIN parked_keys k ON k.generation = g.id
 WHERE {here to read} AND g.projection = $1 AND g.state <> 'retired'
 ORDER BY k.generation, k.key
