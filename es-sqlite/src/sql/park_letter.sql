-- binds: ?1 reader, ?2 key, ?3 position, ?4 stream, ?5 version, ?6 event id, ?7 name, ?8 schema version, ?9 payload,
--        ?10 metadata, ?11 its time in us, ?12 cause, ?13 attempts, ?14 now in us
-- locks: the caller holds the write lock (BEGIN IMMEDIATE)
INSERT INTO dead_letters (reader, key, position, stream, version, event_id, name, schema_version, payload, metadata,
                          recorded_at_us, cause, attempts, parked_at_us)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
