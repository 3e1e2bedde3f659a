-- $1 generation. The schema in which its tables are now. No locks: the caller's transaction holds a checkpoint of the generation,
-- without which it is not promoted.
SELECT CASE g.state WHEN 'serving' THEN t.name ELSE t.name || '_g' || g.id END
  FROM generations g JOIN table_schemas t ON t.generation = g.id
 WHERE {here} AND g.id = $1
