-- Writes the tags of the events of append_events.sql. A tag that an event carries twice is stored once.
-- binds: ?1 as in append_events.sql
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
INSERT INTO event_tags (tag, position, name)
SELECT tag.value, item.value ->> 0, item.value ->> 4
FROM json_each(?1) AS item, json_each(item.value, '$[10]') AS tag
WHERE true -- without it, SQLite parses the ON as that of a join
ON CONFLICT (tag, position) DO NOTHING
