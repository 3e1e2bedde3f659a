-- The lease holders of the shards of a generation, and the positions of the shards.
-- binds: ?1 generation
-- locks: the caller's write lock keeps the answer true
SELECT shard, position, owner, process, fencing_token, beats, ttl_ms, is_asked_for FROM checkpoints WHERE generation = ?1
