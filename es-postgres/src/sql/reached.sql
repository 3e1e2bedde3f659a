-- $1 name of the reader. No locks. One statement, one snapshot: a promotion falls before it or after it.
SELECT coalesce(min(c.position), 0)
  FROM readers r
  JOIN checkpoints c ON c.reader = r.id
 WHERE {here to read} AND r.name = $1 AND NOT r.is_retired
   AND NOT EXISTS (SELECT FROM generations g WHERE g.id = r.id AND g.state = 'building')
