-- $1 reader, $2 messages. Those of them that it has handled. No locks.
SELECT message FROM inbox WHERE {here to read} AND reader = $1 AND message = ANY ($2)
