-- The parked keys of a reader.
-- binds: ?1 reader
-- locks: none
SELECT parked_keys.generation, parked_keys.shard, parked_keys.key, parked_keys.is_retry_requested,
       (SELECT count(*) FROM dead_letters
        WHERE dead_letters.generation = parked_keys.generation AND dead_letters.key = parked_keys.key) AS letters
FROM generations
JOIN parked_keys ON parked_keys.generation = generations.id
WHERE generations.projection = ?1 AND generations.state <> 'retired'
ORDER BY parked_keys.generation, parked_keys.key
