-- $1 id of a reader. What it does with events otherwise than to handle them as the log has them. No locks. One statement, one
-- snapshot.
SELECT kind, key, shard, position, payload
  FROM (SELECT 'parked' AS kind, l.key, '' AS shard, min(l.position) AS position, NULL::bytea AS payload
          FROM dead_letters l WHERE l.reader = $1 GROUP BY l.key
         UNION ALL
        SELECT 'stopped', '', s.shard, s.position, NULL
          FROM stops s JOIN checkpoints c ON c.reader = s.reader AND c.shard = s.shard
         WHERE s.reader = $1 AND s.position > c.position
         UNION ALL
        SELECT 'amended', a.key, a.shard, a.position, a.payload FROM amendments a WHERE a.reader = $1) e
 WHERE {here to read}
