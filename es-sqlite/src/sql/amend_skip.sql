-- Notes that the event at which a reader has stopped in a shard is left out there. To be called before the skip.
-- binds: ?1 reader, ?2 shard, ?3 position, ?4 event
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
INSERT OR REPLACE INTO amendments (reader, position, key, shard, payload)
SELECT stops.reader, stops.position, '', stops.shard, NULL
FROM readers
JOIN stops ON stops.reader = readers.id
JOIN checkpoints ON checkpoints.reader = stops.reader AND checkpoints.shard = stops.shard
WHERE readers.name = ?1
  AND NOT readers.is_retired
  AND stops.shard = ?2
  AND stops.position = ?3
  AND stops.event_id = ?4
  AND checkpoints.position < ?3
