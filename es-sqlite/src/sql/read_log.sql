-- binds: ?1 position after which to start, ?2 the most rows
-- locks: none
SELECT position, stream, version, event_id, name, schema_version, payload, metadata, recorded_at_us
FROM events
WHERE position > ?1
ORDER BY position
LIMIT ?2
