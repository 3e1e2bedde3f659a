-- $1 the position before the chunk, $2 numbers of events in the chunk, $3 their types, $4 their tags. (The same
-- tag twice is one tag.) Locks: what INSERT takes; the append lock is held.
INSERT INTO event_tags (tag, position, type)
SELECT DISTINCT t.tag, $1 + t.event, t.type
  FROM unnest($2::bigint[], $3::text[], $4::text[]) t(event, type, tag)
 WHERE {here}
