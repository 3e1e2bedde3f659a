-- $1 after which position, $2 at most how many. No locks, no fence: the append lock makes every snapshot a
-- prefix of the log.
SELECT position, version, event_id, recorded_at, schema_version, type, payload, metadata, stream
  FROM events
 WHERE {here to read} AND position > $1
 ORDER BY position
 LIMIT $2
