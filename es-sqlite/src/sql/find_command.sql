-- binds: ?1 command id
-- locks: none
SELECT fingerprint, version, position FROM commands WHERE id = ?1
