-- What a reader does with events otherwise than to handle them as the log has them. One statement, so that it is of one moment.
-- binds: ?1 id of a reader
-- locks: none
SELECT 'parked' AS kind, key, '' AS shard, min(position) AS position, NULL AS payload
FROM dead_letters
WHERE reader = ?1
GROUP BY key
UNION ALL
SELECT 'stopped', '', stops.shard, stops.position, NULL
FROM stops
JOIN checkpoints ON checkpoints.reader = stops.reader AND checkpoints.shard = stops.shard
WHERE stops.reader = ?1 AND stops.position > checkpoints.position
UNION ALL
SELECT 'amended', key, shard, position, payload
FROM amendments
WHERE reader = ?1
