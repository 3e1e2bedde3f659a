-- The log: one row an event, written once.
--
-- A stream is stored by its name. Measured on Postgres 18 with 190,000 events of 204 bytes in 33,000
-- streams (batches of 200; microseconds and bytes of WAL an event, indexes included):
--
--     names                    text          hash + text   dictionary + bigint
--     order-<random uuid>      13.6 us 920   10.5 us 895   13.7 us 867
--     order-ORD-<number>        7.3 us 795    9.7 us 812   10.9 us 816
--
-- A name is memcmp'd (COLLATE "C"), keeps the locality of time-ordered ids, which a hash destroys, and
-- needs neither a join on read nor a second table. The type is text for the same reason: no index holds
-- it, and a dictionary would save some 10 of 330 bytes.
CREATE TABLE events (
    position       bigint      NOT NULL,    -- dense, equal to commit order: only append_batch() allots it
    version        bigint      NOT NULL,    -- dense within the stream
    recorded_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    event_id       uuid        NOT NULL,    -- witness of a retry; not indexed
    schema_version integer     NOT NULL,
    stream         text        COLLATE "C" NOT NULL,
    type           text        COLLATE "C" NOT NULL,
    payload        bytea       NOT NULL,    -- as written: UTF-8 JSON; bytea reads at a third of jsonb's cost
    metadata       bytea,                   -- UTF-8 JSON; null when nothing is known
    CONSTRAINT events_position PRIMARY KEY (position),
    CONSTRAINT events_version UNIQUE (stream, version)
) WITH (
    fillfactor = 100,
    -- Rows never change: freeze them at the first visit, and visit before the table has doubled.
    autovacuum_vacuum_insert_scale_factor = 0.02,
    autovacuum_freeze_min_age = 0
);

-- What a client may send again without an expected version to tell by: idempotency keys, and the ids of
-- appends that expect anything. Rows older than any client's patience may be deleted.
CREATE TABLE commands (
    id          uuid        NOT NULL,
    stream      text        COLLATE "C" NOT NULL,
    version     bigint      NOT NULL,
    position    bigint      NOT NULL,
    fingerprint bytea       NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT commands_id PRIMARY KEY (id)
);

-- By what a condition and a query find events: an index, not content. A look-up is a range of positions
-- of one tag, which is empty as long as no other decision on the same tag was made meanwhile.
CREATE TABLE event_tags (
    tag      text   COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    type     text   COLLATE "C" NOT NULL,
    CONSTRAINT event_tags_tag PRIMARY KEY (tag, position) INCLUDE (type)
) WITH (fillfactor = 100, autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_freeze_min_age = 0);

-- lz4 writes four times as fast as pglz at equal size; a server may be built without it.
DO $$
BEGIN
    ALTER TABLE events ALTER payload SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN
    NULL;
END
$$;

-- A second line of defence behind privileges: it also stops the owner. It costs an append nothing, since
-- it does not fire on INSERT. An operator who must rewrite history disables the trigger, which others can see.
CREATE FUNCTION refuse_rewrite() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only (%)', TG_TABLE_NAME, TG_OP USING ERRCODE = 'ES001';
END
$$;

CREATE TRIGGER events_append_only BEFORE DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewrite();

-- A row that has no place in the log yet gets one, once: see append_large().
CREATE TRIGGER events_unchanging BEFORE UPDATE ON events
    FOR EACH ROW WHEN (old.position > 0) EXECUTE FUNCTION refuse_rewrite();

CREATE TRIGGER event_tags_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON event_tags
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewrite();

-- What people see of a stored text; null where jsonb has no room for it (a depth, a number, a character), so that
-- one such row does not end a scan of all. Never written by the store today; an older or a foreign one may have.
CREATE FUNCTION json_for_people(stored bytea) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN pg_catalog.convert_from(stored, 'UTF8')::pg_catalog.jsonb;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN NULL;
END
$$;

-- For people with psql. Filter by position or by (aggregate_type, aggregate_id); the latter scans.
CREATE VIEW event_log AS
SELECT position,
       event_id,
       type AS event_type,
       split_part(stream, '-', 1) AS aggregate_type,
       substr(stream, strpos(stream, '-') + 1) AS aggregate_id,
       version,
       schema_version,
       json_for_people(payload) AS data,
       json_for_people(metadata) AS metadata,
       recorded_at AS "timestamp"
  FROM events;
