-- $1 stream, $2 version, $3 its last event, $4 state.
INSERT INTO snapshots (stream, version, event_id, sealed) VALUES ($1, $2, $3, $4)
