-- ?1 a JSON array with an array for each event. Returns what was written, in its order; what is missing met a conflict.
WITH item AS MATERIALIZED (SELECT jsonb(value) AS value FROM json_each(?1)) -- otherwise each ->> parses its row again
INSERT INTO events (stream, version, event_id, name, schema_version, payload, recorded_at_us)
SELECT item.value ->> 0, item.value ->> 1, unhex(item.value ->> 2), item.value ->> 3, item.value ->> 4,
       CAST(item.value ->> 5 AS BLOB), CAST(unixepoch('subsec') * 1000000 AS INTEGER)
  FROM item
 WHERE true
    ON CONFLICT (stream, version) DO NOTHING
RETURNING event_id
