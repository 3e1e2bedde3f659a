-- $1-$7 one entry an event. Returns what was written, in the order of the arrays; what is missing met a conflict.
INSERT INTO events (version, event_id, schema_version, stream, type, payload, metadata)
SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::int[], $4::text[], $5::text[], $6::bytea[], $7::bytea[])
    ON CONFLICT (stream, version) DO NOTHING
RETURNING event_id, position
