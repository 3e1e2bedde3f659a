-- The events at which a reader has stopped and that it has not passed.
-- binds: ?1 reader
-- locks: none
SELECT stops.reader, stops.shard, stops.position, stops.event_id, stops.recorded_at_us, stops.cause, stops.stopped_at_us
FROM readers
JOIN stops ON stops.reader = readers.id
JOIN checkpoints ON checkpoints.reader = stops.reader AND checkpoints.shard = stops.shard
WHERE readers.name = ?1 AND NOT readers.is_retired AND stops.position > checkpoints.position
ORDER BY stops.reader, stops.shard
