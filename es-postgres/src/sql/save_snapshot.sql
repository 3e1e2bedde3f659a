-- $1 stream, $2 version, $3 last event, $4 state version, $5 checksum, $6 state.
-- Locks: the stream's row. The later of two savers wins, also with an older version: so damage heals.
INSERT INTO snapshots AS s (stream, version, event_id, state_version, checksum, state)
VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (stream) DO UPDATE
   SET version = excluded.version, event_id = excluded.event_id, state_version = excluded.state_version,
       checksum = excluded.checksum, state = excluded.state, saved_at = excluded.saved_at
