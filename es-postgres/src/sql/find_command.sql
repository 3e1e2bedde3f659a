-- $1 the id of the command. No locks.
SELECT fingerprint, version, position FROM commands WHERE id = $1
