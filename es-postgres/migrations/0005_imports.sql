-- How far each import has come: what it has written and this row commit together, so an import that was
-- cut off, for whatever reason, continues after its last event and writes none twice.
CREATE TABLE imports (
    name        text        COLLATE "C" NOT NULL,
    events      bigint      NOT NULL,       -- of its history, from the start
    position    bigint      NOT NULL,       -- of the last of them in the log
    event_id    uuid        NOT NULL,       -- of the last of them, like
    recorded_at timestamptz NOT NULL,       -- its time: another history is found out
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT imports_name PRIMARY KEY (name)
) WITH (fillfactor = 50);

-- Opens the transaction that writes a chunk: a_events events that follow the first a_from of the import's
-- history, the last of them a_last, recorded at a_time.
--
-- The client has looked up the versions of the chunk's streams beforehand, so that no append waits for that in
-- the append lock. Here it learns what was written after a_known, the position up to which it knows everything.
--
-- imported: how many events the import had before; if it is not a_from, another process has gone on with it
-- and this was all. Otherwise log_head is the position before the chunk, and changed_streams are at
-- changed_versions now.
--
-- Locks: the append lock until the end of the transaction, taken before anything is read, as in append_batch();
-- then the import's row. The settings are those of append_batch(), for the same reasons.
CREATE FUNCTION begin_import_chunk(
    a_name text, a_from bigint, a_events bigint, a_last uuid, a_known bigint, a_time timestamptz,
    OUT imported bigint, OUT log_head bigint, OUT changed_streams text[], OUT changed_versions bigint[])
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
BEGIN
    PERFORM take_append_lock();
    SELECT coalesce((SELECT i.events FROM imports i WHERE i.name = a_name), 0) INTO imported;
    IF imported <> a_from THEN RETURN; END IF;
    SELECT coalesce(max(e.position), 0) INTO log_head FROM events e;
    INSERT INTO imports AS i (name, events, position, event_id, recorded_at)
    VALUES (a_name, a_from + a_events, log_head + a_events, a_last, a_time)
        ON CONFLICT (name) DO UPDATE
       SET events = excluded.events, position = excluded.position, event_id = excluded.event_id,
           recorded_at = excluded.recorded_at, updated_at = excluded.updated_at;
    SELECT array_agg(c.stream), array_agg(c.version)
      INTO changed_streams, changed_versions
      FROM (SELECT e.stream, max(e.version) AS version FROM events e WHERE e.position > a_known GROUP BY e.stream) c;
END
$$;
