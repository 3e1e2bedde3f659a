-- The events that carry all tags of an item of the query and have one of its names.
--
-- For each tag of an item, the next position after the current one is looked up; the highest of these is the item's next
-- candidate, since no event before it carries all tags. So a rare tag skips most events of a common one, in any order of
-- the tags. For an item without tags the next candidate is the next event with one of its names. The queue of the
-- recursion is ordered by position: this merges the items, and the LIMIT can end the recursion early. An item without
-- further events stands at the highest possible number.
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
) AS matching -- not in a WHERE position IN: there SQLite computes all candidates before it returns the first
CROSS JOIN events USING (position)
ORDER BY position
