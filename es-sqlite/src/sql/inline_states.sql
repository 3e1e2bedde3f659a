-- What is found of read models that are folded with an append.
-- binds: ?1 JSON array of projections, ?2 the state of their generations, ?3 the shard
-- locks: the caller's write lock keeps the answer true until the end of its transaction
SELECT generations.id,
       generations.projection,
       generations.version,
       readers.definition,
       EXISTS (SELECT 1 FROM paused_readers WHERE paused_readers.reader = generations.projection)
           OR EXISTS (SELECT 1 FROM parked_keys WHERE parked_keys.reader = generations.id) AS is_detached,
       checkpoints.fencing_token,
       checkpoints.position,
       checkpoints.event_id,
       checkpoints.recorded_at_us,
       checkpoints.cursor
FROM generations
JOIN readers ON readers.id = generations.id
LEFT JOIN checkpoints ON checkpoints.reader = generations.id AND checkpoints.shard = ?3
WHERE generations.projection IN (SELECT value FROM json_each(?1)) AND generations.state = ?2
