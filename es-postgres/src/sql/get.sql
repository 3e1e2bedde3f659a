-- $1 projection, $2 key. No locks. One statement, one snapshot: all of the old generation or all of the
-- new one, whatever is promoted meanwhile.
SELECT document
  FROM documents
 WHERE generation = (SELECT id FROM generations WHERE projection = $1 AND state = 'serving') AND key = $2
