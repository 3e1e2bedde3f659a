-- No binds: the rows follow in the protocol. Locks: what INSERT takes; the append lock must be held.
COPY events (position, version, recorded_at, event_id, schema_version, stream, type, payload, metadata)
FROM STDIN (FORMAT binary)
