-- Dead letters of a reader, in the order of generation, key and position.
-- binds: ?1 reader, ?2 only this key or null, ?3 generation, ?4 key and ?5 position after which to start or null,
--        ?6 only this generation or null, ?7 the most rows
-- locks: none
SELECT generations.id AS generation, generations.version AS projection_version, parked_keys.shard,
       dead_letters.key, dead_letters.position, dead_letters.stream, dead_letters.version, dead_letters.event_id,
       dead_letters.name, dead_letters.schema_version, dead_letters.payload, dead_letters.metadata,
       dead_letters.recorded_at_us, dead_letters.edited, dead_letters.cause, dead_letters.attempts,
       dead_letters.parked_at_us, dead_letters.revision
FROM generations
JOIN dead_letters ON dead_letters.generation = generations.id
JOIN parked_keys ON parked_keys.generation = dead_letters.generation AND parked_keys.key = dead_letters.key
WHERE generations.projection = ?1 AND generations.state <> 'retired'
  AND (?2 IS NULL OR dead_letters.key = ?2)
  AND (?3 IS NULL OR (dead_letters.generation, dead_letters.key, dead_letters.position) > (?3, ?4, ?5))
  AND (?6 IS NULL OR dead_letters.generation = ?6)
ORDER BY dead_letters.generation, dead_letters.key, dead_letters.position
LIMIT ?7
