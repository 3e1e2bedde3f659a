-- $1 stream, $2 after which version, $3 at most how many, $4 how many bytes of payload end a page, as in read_log.sql. No locks.
SELECT position, version, event_id, recorded_at, schema_version, type, payload, metadata, stream
  FROM (SELECT e.*, sum(octet_length(e.payload)) OVER (ORDER BY e.version ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
          FROM (SELECT * FROM events WHERE stream = $1 AND version > $2 ORDER BY version LIMIT $3) e) e
 WHERE {here to read} AND coalesce(before, 0) < $4
 ORDER BY version
