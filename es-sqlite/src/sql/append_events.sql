-- binds: ?1 JSON array of [position, stream, version, event id in hex, name, schema version, start and length of
--           the payload, start and length of the metadata (length 0: none)]; starts count from 1
--        ?2 all payloads and metadata end to end
--        ?3 the time, in microseconds since 1970
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
FROM json_each(?1) AS item
