-- $1 the id of the command. No locks.
SELECT fingerprint, version, position FROM commands WHERE {here to read} AND id = $1
