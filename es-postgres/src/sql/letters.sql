-- $1 name of the reader, $2 key or null, $3 id of a reader, $4 key and $5 position after which to start or null, $6 only the reader
-- with this id or null, $7 at most how many, $8 how many bytes of payload end a page. No locks.
SELECT reader, shard, key, position, event_id, stream, version, type, schema_version, recorded_at, payload,
       metadata, edited, cause, attempts, parked_at, revision
  FROM (SELECT l.*, sum(octet_length(l.payload) + coalesce(octet_length(l.edited), 0))
                    OVER (ORDER BY l.reader, l.key, l.position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
          FROM (SELECT k.shard, l.*
                  FROM readers r JOIN dead_letters l ON l.reader = r.id
                  JOIN parked_keys k ON k.reader = l.reader AND k.key = l.key
                 WHERE r.name = $1 AND NOT r.is_retired AND ($2::text IS NULL OR l.key = $2)
                   AND ($3::bigint IS NULL OR (l.reader, l.key, l.position) > ($3, $4::text, $5::bigint))
                   AND ($6::bigint IS NULL OR l.reader = $6)
                 ORDER BY l.reader, l.key, l.position LIMIT $7) l) l
 WHERE {here to read} AND coalesce(before, 0) < $8
 ORDER BY reader, key, position
