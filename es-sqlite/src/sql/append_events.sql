-- Writes the events of accepted appends. If a stream does not end as its first append here expects, an event has no id, and
-- SQLite refuses the statement.
-- binds: ?1 JSON array of [position, stream, version, event id in hex, name, schema version, start and length of
--           the payload, start and length of the metadata (length 0: none), array of tags, id in hex of the event that
--           must be the last one of the stream (null: not checked), its time or null]; starts count from 1
--        ?2 all payloads and metadata end to end
--        ?3 the time, in microseconds since 1970
-- locks: the write lock; takes it, unless the caller holds it already (BEGIN IMMEDIATE)
WITH rows AS MATERIALIZED (SELECT jsonb(value) AS value FROM json_each(?1)), -- otherwise each ->> parses its row again
     items AS MATERIALIZED (
         SELECT value ->> 0 AS position,
                value ->> 1 AS stream,
                value ->> 2 AS version,
                unhex(value ->> 3) AS event_id,
                value ->> 4 AS name,
                value ->> 5 AS schema_version,
                substr(?2, value ->> 6, value ->> 7) AS payload,
                iif(value ->> 9 > 0, substr(?2, value ->> 8, value ->> 9), NULL) AS metadata,
                unhex(value ->> 11) AS last_id,
                value ->> 12 AS last_recorded_at_us
         FROM rows)
INSERT INTO events (position, stream, version, event_id, name, schema_version, payload, metadata, recorded_at_us)
SELECT position,
       stream,
       version,
       iif(last_id IS NULL
           OR EXISTS (SELECT 1 FROM events AS last
                      WHERE last.stream = items.stream
                        AND last.version = items.version - 1
                        AND last.event_id = items.last_id
                        AND last.recorded_at_us = coalesce(items.last_recorded_at_us, last.recorded_at_us)),
           event_id,
           NULL),
       name,
       schema_version,
       payload,
       metadata,
       ?3
FROM items
