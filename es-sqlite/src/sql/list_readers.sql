-- All readers, a row for each of their checkpoints; one row without a shard where there is none.
-- binds: none
-- locks: none
SELECT readers.id, name, version, state, definition,
       shard, position, recorded_at_us, owner, process, fencing_token, beats, ttl_ms, leased_at_us
FROM readers
LEFT JOIN generations ON generations.id = readers.id
LEFT JOIN checkpoints ON checkpoints.reader = readers.id
WHERE NOT is_retired
ORDER BY name, state = 'building', readers.id
