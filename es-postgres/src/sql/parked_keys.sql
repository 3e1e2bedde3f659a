-- $1 reader. No locks.
SELECT k.reader, k.shard, k.key, k.is_retry_requested,
       (SELECT count(*) FROM dead_letters l WHERE l.reader = k.reader AND l.key = k.key)
  FROM readers r JOIN parked_keys k ON k.reader = r.id
 WHERE {here to read} AND r.name = $1 AND NOT r.is_retired
 ORDER BY k.reader, k.key
