INSERT INTO events (version, event_id, schema_version, stream, type, payload, metadata)
VALUES ($1, $2, $3, $4, $5, $6, $7)
