-- The events that carry all tags of an item of the query and have one of its names.
--
-- Of each item, the candidate after any position is the furthest of its tags' next positions: no event between the two
-- carries all tags. So a rare tag leaps over most of a common one, whichever is named first. The queue of the recursion
-- is in order of position, which merges the items and lets the LIMIT end it early; an item that has run out of events
-- is at the highest number there is. Of an item without tags the next candidate is the next event with one of its names.
-- binds: ?1 JSON array of [tags, names], ?2 position after which to start, ?3 the most rows
-- locks: none
WITH RECURSIVE candidates (tags, names, position) AS (
    SELECT item.value ->> 0, item.value ->> 1, ?2 FROM json_each(?1) AS item
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
SELECT position, stream, version, event_id, name, schema_version, payload, metadata, recorded_at_us
FROM (
    SELECT DISTINCT position
    FROM candidates
    WHERE position > ?2
      AND position < 9223372036854775807
      AND json_array_length(tags) = (
          SELECT count(*)
          FROM json_each(tags) AS wanted
          CROSS JOIN event_tags AS found ON found.tag = wanted.value AND found.position = candidates.position
          WHERE names = '[]' OR EXISTS (SELECT 1 FROM json_each(names) AS one WHERE one.value = found.name))
    LIMIT ?3
) AS matching -- not in a WHERE position IN: for that, SQLite finds all candidates before it takes the first
CROSS JOIN events USING (position)
ORDER BY position
