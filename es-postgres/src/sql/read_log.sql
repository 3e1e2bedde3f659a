-- $1 after which position, $2 at most how many, $3 how many bytes of payload end a page: it ends with the event that reaches
-- them. (The length of a large payload stands in its row, so only what is sent is read.) Running sums cost twice as much as one
-- sum, so they are made only for a page that is too large. No locks, no fence: the append lock makes every snapshot a prefix of
-- the log.
SELECT position, version, event_id, recorded_at, schema_version, type, payload, metadata, stream
  FROM events
 WHERE {here to read} AND position > $1 AND position <= (
       SELECT CASE WHEN sum(bytes) < $3 THEN max(position)
              ELSE (SELECT min(position)
                      FROM (SELECT position, sum(bytes) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) AS so_far
                              FROM (SELECT position, octet_length(payload) AS bytes
                                      FROM events WHERE position > $1 ORDER BY position LIMIT $2) e) e
                     WHERE so_far >= $3) END
         FROM (SELECT position, octet_length(payload) AS bytes FROM events WHERE position > $1 ORDER BY position LIMIT $2) e)
 ORDER BY position LIMIT $2
