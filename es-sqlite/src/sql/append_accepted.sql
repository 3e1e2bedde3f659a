-- Writes the accepted appends of a batch.
-- binds: ?1 JSON array of [position, stream, version, event id in hex, name, schema version, start and length of
--           the payload, start and length of the metadata (length 0: none), array of tags]; starts count from 1
--        ?2 all payloads and metadata end to end
--        ?3 the time, in microseconds since 1970
--        ?4 JSON array of [command id in hex, start and length of the fingerprint, version, position];
--           starts count from 1
--        ?5 all fingerprints end to end
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
INSERT INTO events (position, stream, version, event_id, name, schema_version, payload, metadata, recorded_at_us)
SELECT item.value ->> 0,
       item.value ->> 1,
       item.value ->> 2,
       unhex(item.value ->> 3),
       item.value ->> 4,
       item.value ->> 5,
       substr(?2, item.value ->> 6, item.value ->> 7),
       iif(item.value ->> 9 > 0, substr(?2, item.value ->> 8, item.value ->> 9), NULL),
       ?3
FROM json_each(?1) AS item;

-- A tag that an event carries twice is stored once.
INSERT INTO event_tags (tag, position, name)
SELECT tag.value, item.value ->> 0, item.value ->> 4
FROM json_each(?1) AS item, json_each(item.value, '$[10]') AS tag
WHERE true -- without it, SQLite parses the ON as that of a join
ON CONFLICT (tag, position) DO NOTHING;

INSERT INTO commands (id, fingerprint, version, position)
SELECT unhex(item.value ->> 0), substr(?5, item.value ->> 1, item.value ->> 2), item.value ->> 3, item.value ->> 4
FROM json_each(?4) AS item
