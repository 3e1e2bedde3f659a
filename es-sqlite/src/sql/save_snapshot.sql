-- binds: ?1 stream, ?2 version, ?3 event id, ?4 state version, ?5 state, ?6 checksum, ?7 time of the event or null
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
INSERT INTO snapshots (stream, version, event_id, state_version, state, checksum, recorded_at_us)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
ON CONFLICT (stream) DO UPDATE
SET version = excluded.version,
    event_id = excluded.event_id,
    state_version = excluded.state_version,
    state = excluded.state,
    checksum = excluded.checksum,
    recorded_at_us = excluded.recorded_at_us
