-- binds: ?1 stream, ?2 version, ?3 event id, ?4 state version, ?5 state, ?6 checksum
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
INSERT INTO snapshots (stream, version, event_id, state_version, state, checksum)
VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (stream) DO UPDATE
SET version = excluded.version,
    event_id = excluded.event_id,
    state_version = excluded.state_version,
    state = excluded.state,
    checksum = excluded.checksum
