-- Dead letters of a reader, in the order of reader, key and position.
-- binds: ?1 name of the reader, ?2 only this key or null, ?3 id of a reader, ?4 key and ?5 position after which to start or null,
--        ?6 only the reader with this id or null, ?7 the most rows
-- locks: none
SELECT dead_letters.position, dead_letters.stream, dead_letters.version, dead_letters.event_id, dead_letters.name,
       dead_letters.schema_version, dead_letters.payload, dead_letters.metadata, dead_letters.recorded_at_us,
       dead_letters.reader, parked_keys.shard, dead_letters.key, dead_letters.edited, dead_letters.cause, dead_letters.attempts,
       dead_letters.parked_at_us, dead_letters.revision
FROM readers
JOIN dead_letters ON dead_letters.reader = readers.id
JOIN parked_keys ON parked_keys.reader = dead_letters.reader AND parked_keys.key = dead_letters.key
WHERE readers.name = ?1 AND NOT readers.is_retired
  AND (?2 IS NULL OR dead_letters.key = ?2)
  AND (?3 IS NULL OR (dead_letters.reader, dead_letters.key, dead_letters.position) > (?3, ?4, ?5))
  AND (?6 IS NULL OR dead_letters.reader = ?6)
ORDER BY dead_letters.reader, dead_letters.key, dead_letters.position
LIMIT ?7
