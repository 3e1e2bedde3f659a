-- $1 stream. The first row is the snapshot, the others are the events after it.
SELECT version, sealed FROM snapshots WHERE stream = $1
UNION ALL
(SELECT version, payload
   FROM events
  WHERE stream = $1 AND version > (SELECT version FROM snapshots WHERE stream = $1)
  ORDER BY version)
