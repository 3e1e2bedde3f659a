-- The generation that the building one would replace, and its shard in which readers would lose the most: its position
-- there, and the position of the building one in the same shard (or in its slowest shard, if it reads from another
-- source). The slowest shards of both are compared too, since their positions are what readers have reached.
-- No row: the generation is not being built.
-- binds: ?1 building generation
-- locks: the caller's write lock keeps the answer true until the switch
WITH shards AS (
    SELECT old.position AS serving_at,
           coalesce((SELECT position FROM checkpoints WHERE reader = ?1 AND shard = old.shard),
                    (SELECT min(position) FROM checkpoints WHERE reader = ?1), 0) AS building_at
    FROM generations AS building
    JOIN generations AS serving ON serving.projection = building.projection AND serving.state = 'serving'
    JOIN checkpoints AS old ON old.reader = serving.id
    WHERE building.id = ?1
), worst AS (
    SELECT building_at, serving_at
    FROM (SELECT building_at, serving_at FROM shards
          UNION ALL
          SELECT coalesce((SELECT min(position) FROM checkpoints WHERE reader = ?1), 0), min(serving_at) FROM shards)
    ORDER BY serving_at - building_at DESC
    LIMIT 1
)
SELECT building.version,
       serving.id AS serving,
       serving.version AS serving_version,
       serving.withdrawn,
       coalesce((SELECT building_at FROM worst), 0) AS building_at,
       coalesce((SELECT serving_at FROM worst), 0) AS serving_at
FROM generations AS building
LEFT JOIN generations AS serving ON serving.projection = building.projection AND serving.state = 'serving'
WHERE building.id = ?1 AND building.state = 'building'
