-- $1 after which position, $2 at most how many. The reader ends the page where its payloads have too many bytes: for events that are
-- expected to be small, since it costs the server a quarter less than read_log.sql. No locks, no fence: as there.
SELECT position, version, event_id, recorded_at, schema_version, type, payload, metadata, stream
  FROM events
 WHERE {here to read} AND position > $1
 ORDER BY position LIMIT $2
