-- Writes the ids of the commands of accepted appends, with their outcomes.
-- binds: ?4 JSON array of [command id in hex, start and length of the fingerprint, version, position];
--           starts count from 1
--        ?5 all fingerprints end to end
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
INSERT INTO commands (id, fingerprint, version, position)
SELECT unhex(item.value ->> 0), substr(?5, item.value ->> 1, item.value ->> 2), item.value ->> 3, item.value ->> 4
FROM json_each(?4) AS item
