-- A tag that is twice on one event is one tag.
-- binds: ?1 JSON array of [tag, position, name of the event]
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
INSERT INTO event_tags (tag, position, name)
SELECT item.value ->> 0, item.value ->> 1, item.value ->> 2
FROM json_each(?1) AS item
WHERE true -- without it, SQLite takes the ON for that of a join
ON CONFLICT (tag, position) DO NOTHING
