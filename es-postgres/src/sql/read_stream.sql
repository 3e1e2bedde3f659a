-- $1 stream, $2 after which version, $3 at most how many. No locks.
SELECT position, version, event_id, recorded_at, schema_version, type, payload, metadata, stream
  FROM events
 WHERE {here to read} AND stream = $1 AND version > $2
 ORDER BY version
 LIMIT $3
