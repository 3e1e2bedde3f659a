-- One snapshot a stream: a saving, never a fact. Deleting every row changes nothing but time.
CREATE TABLE snapshots (
    stream      text        COLLATE "C" NOT NULL,
    version     bigint      NOT NULL,
    event_id    uuid        NOT NULL,
    recorded_at timestamptz,                -- that of the event; null where the id alone tells
    -- State version and checksum (unsigned, four bytes each, the highest first), then the state: it is read beside events,
    -- and each column more would cost something in each of their rows.
    sealed      bytea       NOT NULL,
    saved_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT snapshots_stream PRIMARY KEY (stream)
) WITH (fillfactor = 70);

DO $$
BEGIN
    ALTER TABLE snapshots ALTER sealed SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN
    NULL;
END
$$;
