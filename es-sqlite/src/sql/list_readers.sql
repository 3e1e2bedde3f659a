-- All readers, a row for each of their checkpoints; one row without a shard where there is none.
-- binds: none
-- locks: none
SELECT generations.id, projection, version, state, definition,
       shard, position, recorded_at_us, owner, process, fencing_token, beats, ttl_ms, leased_at_us
FROM generations
LEFT JOIN checkpoints ON checkpoints.generation = generations.id
WHERE state <> 'retired'
ORDER BY projection, state = 'building', generations.id
