-- binds: ?1 reader, ?2 JSON array of messages, in hexadecimal
-- locks: none
SELECT inbox.message
FROM json_each(?2) AS item
CROSS JOIN inbox ON inbox.reader = ?1 AND inbox.message = unhex(item.value)
