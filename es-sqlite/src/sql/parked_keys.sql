-- The parked keys of a reader.
-- binds: ?1 reader
-- locks: none
SELECT parked_keys.reader, parked_keys.shard, parked_keys.key, parked_keys.is_retry_requested,
       (SELECT count(*) FROM dead_letters
        WHERE dead_letters.reader = parked_keys.reader AND dead_letters.key = parked_keys.key) AS letters
FROM readers
JOIN parked_keys ON parked_keys.reader = readers.id
WHERE readers.name = ?1 AND NOT readers.is_retired
ORDER BY parked_keys.reader, parked_keys.key
