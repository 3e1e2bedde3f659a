-- $1 the id of the command. No locks.
SELECT fingerprint, version, position FROM commands WHERE {here} AND id = $1
