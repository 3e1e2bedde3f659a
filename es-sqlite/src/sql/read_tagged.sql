-- What read_matching.sql finds for a query that asks for one tag and nothing else.
-- binds: ?1 tag, ?2 position after which to start, ?3 the most rows
-- locks: none
SELECT found.position, stream, version, event_id, events.name, schema_version, payload, metadata, recorded_at_us
FROM event_tags AS found
CROSS JOIN events USING (position)
WHERE found.tag = ?1 AND found.position > ?2
ORDER BY found.position
LIMIT ?3
