-- What the log knows of each append of a batch.
-- binds: ?1 JSON array of [stream, version behind the expected one or null, command id in hex or null]
-- locks: the caller's write lock keeps the answer true until the batch is written
SELECT (SELECT max(version) FROM events WHERE stream = item.value ->> 0) AS version,
       events.event_id,
       events.position,
       commands.fingerprint,
       commands.version AS command_version,
       commands.position AS command_position
FROM json_each(?1) AS item
LEFT JOIN events ON events.stream = item.value ->> 0 AND events.version = item.value ->> 1
LEFT JOIN commands ON commands.id = unhex(item.value ->> 2)
ORDER BY item.key
