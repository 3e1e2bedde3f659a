-- $1 projection. The generation that serves, and the public name of the schema with its tables. No row where none serves. No locks.
SELECT g.id, g.version, t.name
  FROM generations g JOIN table_schemas t ON t.generation = g.id
 WHERE {here to read} AND g.projection = $1 AND g.state = 'serving'
