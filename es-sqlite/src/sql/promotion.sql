-- How far a building generation is, and the one it is to replace. No row: it is not being built.
-- binds: ?1 building generation
-- locks: the caller's write lock keeps the answer true until the switch
SELECT coalesce((SELECT min(position) FROM checkpoints WHERE generation = building.id), 0) AS building_at,
       serving.id AS serving,
       coalesce((SELECT min(position) FROM checkpoints WHERE generation = serving.id), 0) AS serving_at
FROM generations AS building
LEFT JOIN generations AS serving ON serving.projection = building.projection AND serving.state = 'serving'
WHERE building.id = ?1 AND building.state = 'building'
