-- For each part of the conditions of a batch, the first event that matches it, or null. The search is that of
-- read_matching.sql.
-- binds: ?1 JSON array of [position after which to look, JSON array of [tags, names]]
-- locks: the caller's write lock keeps the answer true until the batch is written
SELECT (
    WITH RECURSIVE candidates (tags, names, position) AS (
        SELECT item.value ->> 0, item.value ->> 1, condition.value ->> 0 FROM json_each(condition.value ->> 1) AS item
        UNION ALL
        SELECT tags,
               names,
               CASE WHEN tags = '[]' THEN
                   coalesce((SELECT position FROM events
                             WHERE events.position > candidates.position
                               AND (names = '[]'
                                    OR EXISTS (SELECT 1 FROM json_each(names) AS one WHERE one.value = events.name))
                             ORDER BY position LIMIT 1),
                            9223372036854775807)
               ELSE
                   (SELECT max(coalesce((SELECT min(position) FROM event_tags
                                         WHERE tag = wanted.value AND position > candidates.position),
                                        9223372036854775807))
                    FROM json_each(candidates.tags) AS wanted)
               END
        FROM candidates
        WHERE position < 9223372036854775807
        ORDER BY 3
    )
    SELECT position
    FROM candidates
    WHERE position > condition.value ->> 0
      AND position < 9223372036854775807
      AND json_array_length(tags) = (
          SELECT count(*)
          FROM json_each(tags) AS wanted
          CROSS JOIN event_tags AS found ON found.tag = wanted.value AND found.position = candidates.position
          WHERE names = '[]' OR EXISTS (SELECT 1 FROM json_each(names) AS one WHERE one.value = found.name))
    LIMIT 1
)
FROM json_each(?1) AS condition
ORDER BY condition.key
