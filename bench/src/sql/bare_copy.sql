-- No binds: the rows follow in the protocol.
COPY events (position, version, recorded_at, event_id, schema_version, stream, type, payload, metadata)
FROM STDIN (FORMAT binary)
