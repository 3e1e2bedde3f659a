-- The events at which a reader has stopped and that it has not passed.
-- binds: ?1 reader
-- locks: none
SELECT stops.generation, stops.shard, stops.position, stops.event_id, stops.recorded_at_us, stops.cause, stops.stopped_at_us
FROM generations
JOIN stops ON stops.generation = generations.id
JOIN checkpoints ON checkpoints.generation = stops.generation AND checkpoints.shard = stops.shard
WHERE generations.projection = ?1 AND generations.state <> 'retired' AND stops.position > checkpoints.position
ORDER BY stops.generation, stops.shard
