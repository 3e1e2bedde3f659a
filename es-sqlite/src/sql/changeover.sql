-- The shards of a generation that belong to another source than the one that is to feed it: how many, whether any is
-- leased, between which positions they stand, and their greatest token.
-- binds: ?1 generation, ?2 the source that is to feed it, ?3 now in ms
-- locks: the caller's write lock keeps the answer true until the changeover
SELECT count(*) AS others,
       coalesce(sum(owner IS NOT NULL AND expires_at_ms > ?3), 0) AS leased,
       coalesce(min(position), 0) AS slowest,
       coalesce(max(position), 0) AS fastest,
       coalesce(max(token), 0) AS token
FROM checkpoints
WHERE generation = ?1 AND substr(shard, 1, instr(shard || '/', '/') - 1) <> ?2
