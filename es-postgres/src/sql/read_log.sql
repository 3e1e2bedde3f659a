-- $1 after which position, $2 at most how many, $3 how many bytes of payload end a page: it ends with the event that reaches
-- them. (The length of a large payload stands in its row, so only what is sent is read.) No locks, no fence: the append lock
-- makes every snapshot a prefix of the log.
SELECT position, version, event_id, recorded_at, schema_version, type, payload, metadata, stream
  FROM (SELECT e.*, sum(octet_length(e.payload)) OVER (ORDER BY e.position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
          FROM (SELECT * FROM events WHERE position > $1 ORDER BY position LIMIT $2) e) e
 WHERE {here to read} AND coalesce(before, 0) < $3
 ORDER BY position
