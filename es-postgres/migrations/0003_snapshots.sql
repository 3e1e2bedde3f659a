-- One snapshot a stream: a saving, never a fact. Deleting every row changes nothing but time.
CREATE TABLE snapshots (
    stream        text        COLLATE "C" NOT NULL,
    version       bigint      NOT NULL,
    event_id      uuid        NOT NULL,
    state_version bigint      NOT NULL,     -- unsigned 32 bits
    checksum      bigint      NOT NULL,     -- unsigned 32 bits
    state         bytea       NOT NULL,
    saved_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT snapshots_stream PRIMARY KEY (stream)
) WITH (fillfactor = 70);

DO $$
BEGIN
    ALTER TABLE snapshots ALTER state SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN
    NULL;
END
$$;
