-- The lease holders of the shards of a reader, and the positions of the shards.
-- binds: ?1 reader
-- locks: the caller's write lock keeps the answer true
SELECT shard, position, owner, process, fencing_token, beats, ttl_ms, is_asked_for FROM checkpoints WHERE reader = ?1
