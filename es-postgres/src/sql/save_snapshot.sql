-- $1 stream, $2 version, $3 last event, $4 the sealed state, $5 time of the event or null.
-- Locks: the stream's row. The later of two savers wins, also with an older version: so damage heals.
INSERT INTO snapshots AS s (stream, version, event_id, sealed, recorded_at)
SELECT $1, $2, $3, $4, $5 WHERE {here}
    ON CONFLICT (stream) DO UPDATE
   SET version = excluded.version, event_id = excluded.event_id, sealed = excluded.sealed,
       recorded_at = excluded.recorded_at, saved_at = excluded.saved_at
