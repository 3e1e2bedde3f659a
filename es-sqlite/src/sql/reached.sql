-- The position up to which a reader has everything: of a read model, the generation that serves. One statement, one snapshot: a
-- promotion falls before it or after it.
-- binds: ?1 name
-- locks: none
SELECT coalesce(min(checkpoints.position), 0)
FROM readers
JOIN checkpoints ON checkpoints.reader = readers.id
WHERE readers.name = ?1 AND NOT readers.is_retired
  AND NOT EXISTS (SELECT 1 FROM generations WHERE generations.id = readers.id AND generations.state = 'building')
