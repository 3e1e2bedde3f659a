-- Moves a checkpoint past the event at which its reader has stopped; no row changes when it has not stopped there, or is past it.
-- binds: ?1 reader, ?2 shard, ?3 position, ?4 event id
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
UPDATE checkpoints
SET position = stops.position, event_id = stops.event_id, recorded_at_us = stops.recorded_at_us
FROM stops
WHERE stops.reader = checkpoints.reader AND stops.shard = checkpoints.shard
  AND stops.shard = ?2 AND stops.position = ?3 AND stops.event_id = ?4 AND checkpoints.position < ?3
  AND checkpoints.reader IN (SELECT id FROM readers WHERE name = ?1 AND NOT is_retired)
