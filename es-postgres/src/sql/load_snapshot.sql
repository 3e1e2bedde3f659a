-- $1 stream. The row is as in load_streams.sql. No locks.
SELECT -version, event_id, state_version, checksum::text, state FROM snapshots WHERE stream = $1 AND version > 0
