-- What the log holds that decides each append of a batch, and the position of its last event.
-- binds: ?1 JSON array of [stream, version after the expected one or null, command id in hex or null]
-- locks: the caller's write lock keeps the answer true until the batch is written
SELECT (SELECT coalesce(max(position), 0) FROM events) AS head,
       last.version,
       last.event_id AS last_id,
       last.recorded_at_us AS last_recorded_at_us,
       next.event_id AS next_id,
       next.position AS next_position,
       commands.fingerprint,
       commands.version AS command_version,
       commands.position AS command_position
FROM json_each(?1) AS item
LEFT JOIN events AS last
       ON last.stream = item.value ->> 0
      AND last.version = (SELECT max(version) FROM events WHERE stream = item.value ->> 0)
LEFT JOIN events AS next ON next.stream = item.value ->> 0 AND next.version = item.value ->> 1
LEFT JOIN commands ON commands.id = unhex(item.value ->> 2)
ORDER BY item.key
