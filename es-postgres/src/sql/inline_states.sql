-- $1 projections, $2 the state of their generations, $3 the shard: what is found of read models that are folded with an append. No row
-- for one of which no generation is in that state, or that has no checkpoint in the shard; a promotion that commits while this
-- statement waits for it takes the row away, too. The last column: whether a worker holds the lease.
-- Locks: the checkpoints' rows, in the order of their readers: after the append lock, and before the documents.
SELECT g.id, g.projection, g.version, r.definition,
       EXISTS (SELECT FROM paused_readers p WHERE p.reader = g.projection)
           OR EXISTS (SELECT FROM parked_keys k WHERE k.reader = g.id),
       c.fencing_token, c.position, c.event_id, c.recorded_at, c.cursor,
       c.owner IS NOT NULL
  FROM generations g
  JOIN readers r ON r.id = g.id
  JOIN checkpoints c ON c.reader = g.id AND c.shard = $3
 WHERE {here} AND g.projection = ANY ($1) AND g.state = $2
 ORDER BY g.id
   FOR UPDATE OF c
