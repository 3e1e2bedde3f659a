-- A tag that an event carries twice is stored once.
-- binds: ?1 JSON array of [tag, position, name of the event]
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
INSERT INTO event_tags (tag, position, name)
SELECT item.value ->> 0, item.value ->> 1, item.value ->> 2
FROM json_each(?1) AS item
WHERE true -- without it, SQLite parses the ON as that of a join
ON CONFLICT (tag, position) DO NOTHING
