-- binds: ?1 reader, ?2 JSON array of messages, in hexadecimal, ?3 now in us
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
INSERT INTO inbox (reader, message, handled_at_us)
SELECT ?1, unhex(item.value), ?3
FROM json_each(?2) AS item
WHERE true
ON CONFLICT DO NOTHING
