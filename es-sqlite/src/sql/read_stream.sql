-- binds: ?1 stream, ?2 version after which to start, ?3 the most rows
-- locks: none
SELECT position, stream, version, event_id, name, schema_version, payload, metadata, recorded_at_us
FROM events
WHERE stream = ?1 AND version > ?2
ORDER BY version
LIMIT ?3
