-- $1-$7 one entry an event, as in bare_batch.sql; $8 and $9 one entry a tag, with its event's id.
WITH written AS (
    INSERT INTO events (version, event_id, schema_version, stream, type, payload, metadata)
    SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::int[], $4::text[], $5::text[], $6::bytea[], $7::bytea[])
        ON CONFLICT (stream, version) DO NOTHING
    RETURNING event_id, position, type),
tagged AS (
    INSERT INTO event_tags (tag, position, type)
    SELECT t.tag, w.position, w.type
      FROM unnest($8::uuid[], $9::text[]) t(event_id, tag)
      JOIN written w USING (event_id))
SELECT event_id, position FROM written
