-- Which store this is: a part of the names of its readers' consumer groups.
CREATE TABLE store_id (
    id        uuid    NOT NULL DEFAULT gen_random_uuid(),
    singleton boolean NOT NULL DEFAULT true,
    CONSTRAINT store_id_singleton PRIMARY KEY (singleton),
    CONSTRAINT store_id_one CHECK (singleton)
);
INSERT INTO store_id DEFAULT VALUES;

-- What has checkpoints: policies, and the generations of read models. A retired one was a generation: it is invisible, and its
-- documents are on their way out. Its row goes with the last of them.
CREATE TABLE readers (
    id         bigint      GENERATED ALWAYS AS IDENTITY,
    name       text        COLLATE "C" NOT NULL, -- of the policy or projection
    definition text        NOT NULL,             -- of the code that made it; the first word says its kind
    is_retired boolean     NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT readers_id PRIMARY KEY (id)
);
CREATE INDEX readers_name ON readers (name) WHERE NOT is_retired;

-- Copies of read models: readers with documents.
CREATE TABLE generations (
    id         bigint NOT NULL,             -- of the reader
    projection text   COLLATE "C" NOT NULL, -- the name of the reader
    version    bigint NOT NULL,             -- unsigned 32 bits
    state      text   NOT NULL,
    fields     jsonb  NOT NULL,             -- of its documents: the kind of each by its name
    withdrawn  bigint NOT NULL DEFAULT 0,   -- the newest version in whose place this one was promoted on purpose
    CONSTRAINT generations_id PRIMARY KEY (id),
    CONSTRAINT generations_reader FOREIGN KEY (id) REFERENCES readers ON DELETE CASCADE,
    CONSTRAINT generations_state CHECK (state IN ('serving', 'building')),
    CONSTRAINT generations_projection UNIQUE (projection, state)
);

-- How far a reader has come in each shard of its source, and who may advance it. Every commit
-- updates one row in place: half of each page is left free for that.
CREATE TABLE checkpoints (
    reader      bigint  NOT NULL REFERENCES readers ON DELETE CASCADE,
    shard       text    COLLATE "C" NOT NULL,
    source      text    COLLATE "C" NOT NULL,  -- that the shard is a part of
    position    bigint  NOT NULL DEFAULT 0,
    event_id    uuid,                       -- of the last event that was folded, like
    recorded_at timestamptz,                -- its time
    cursor      text,
    owner       uuid,
    fencing_token bigint NOT NULL DEFAULT 0, -- grows with every change of owner: the fence
    leased_at   timestamptz,                -- since when this owner has it; for people
    lease_until timestamptz,                -- by the clock of the database, the only one all owners share
    acts        bigint  NOT NULL DEFAULT 0, -- of operators: grows with each, so that the worker notices
    is_asked_for boolean NOT NULL DEFAULT false, -- another worker asks the owner to give it back
    CONSTRAINT checkpoints_shard PRIMARY KEY (reader, shard)
) WITH (fillfactor = 50);

-- Documents as the projection's codec wrote them; bytea, because json would only parse them again on
-- the way in. Keys sort by their bytes, as the port promises. No foreign key: checkpoints fence writers.
CREATE TABLE documents (
    generation bigint NOT NULL,
    key        text   COLLATE "C" NOT NULL,
    document   bytea  NOT NULL,
    CONSTRAINT documents_key PRIMARY KEY (generation, key)
) WITH (fillfactor = 80);

DO $$
BEGIN
    ALTER TABLE documents ALTER document SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN
    NULL;
END
$$;

-- For people with psql: what readers see at this moment.
CREATE VIEW read_models AS
SELECT g.projection, g.version, d.key, json_for_people(d.document) AS document
  FROM generations g JOIN documents d ON d.generation = g.id
 WHERE g.state = 'serving';

-- The reader of a_name, made where there is none: the oldest of the name, whose definition shows what it is.
-- Locks: the table of readers against others that make one, where there is none yet. So of a policy and a projection at once one
-- gets the name.
CREATE FUNCTION ensure_reader(a_name text, a_definition text) RETURNS TABLE (id bigint, definition text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    FOR round IN 1..2 LOOP
        RETURN QUERY SELECT r.id, r.definition FROM readers r WHERE r.name = a_name AND NOT r.is_retired ORDER BY r.id LIMIT 1;
        IF FOUND THEN RETURN; END IF;
        LOCK TABLE readers IN SHARE ROW EXCLUSIVE MODE;
    END LOOP;
    RETURN QUERY INSERT INTO readers AS r (name, definition) VALUES (a_name, a_definition) RETURNING r.id, r.definition;
END
$$;

-- The generation in a_state of a_projection, made where there is none. other: the definition of a reader that has the name and is
-- no generation; then none is made.
-- Locks: as ensure_reader().
CREATE FUNCTION ensure_generation(a_projection text, a_version bigint, a_state text, a_definition text, a_fields jsonb)
RETURNS TABLE (id bigint, version bigint, other text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    FOR round IN 1..2 LOOP
        RETURN QUERY SELECT g.id, g.version, NULL::text FROM generations g WHERE g.projection = a_projection AND g.state = a_state;
        IF FOUND THEN RETURN; END IF;
        RETURN QUERY SELECT r.id, 0::bigint, r.definition FROM readers r
                      WHERE r.name = a_projection AND NOT r.is_retired
                        AND NOT EXISTS (SELECT FROM generations g WHERE g.id = r.id);
        IF FOUND THEN RETURN; END IF;
        LOCK TABLE readers IN SHARE ROW EXCLUSIVE MODE;
    END LOOP;
    INSERT INTO readers AS r (name, definition) VALUES (a_projection, a_definition) RETURNING r.id INTO id;
    RETURN QUERY INSERT INTO generations AS g (id, projection, version, state, fields)
                 VALUES (id, a_projection, a_version, a_state, a_fields) RETURNING g.id, g.version, NULL::text;
END
$$;

-- Feeds a reader through a_shards, which belong to a_sources (what stands before the '/'): one, or topics of another system that are
-- read together. It is fed by another source if it has checkpoints, and none of them in one of these.
-- outcome: 'ready'; 'busy' when a worker of another source holds a lease; 'uneven' when the shards of another
-- source stand at different positions; 'parked' when keys are parked and there are several new shards, one of which is theirs.
-- Otherwise the new shards go on where the former ones stood. Those that are added to others begin at the first position.
-- Locks: the reader, which keeps promotion and other changeovers out; then its checkpoints, which
-- waits for the commits in flight; then parked keys, and the new rows.
CREATE FUNCTION ensure_shards(a_reader bigint, a_sources text[], a_shards text[]) RETURNS text
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_seed   record;
    v_fencing_token bigint := 0;
    v_former record;
BEGIN
    -- Nothing to do: a worker that waits for a lease asks twice a second, and a lock on a row is a write to the disk.
    IF NOT EXISTS (SELECT FROM unnest(a_shards) s(shard)
                    WHERE NOT EXISTS (SELECT FROM checkpoints c
                                       WHERE c.reader = a_reader AND c.shard = s.shard))
    THEN RETURN 'ready'; END IF;
    PERFORM 1 FROM readers r WHERE r.id = a_reader AND NOT r.is_retired FOR NO KEY UPDATE;
    IF NOT FOUND THEN RETURN 'ready'; END IF;
    SELECT 0::bigint AS position, NULL::uuid AS event_id, NULL::timestamptz AS recorded_at INTO v_seed;
    PERFORM 1 FROM checkpoints c
      WHERE c.reader = a_reader
        AND NOT EXISTS (SELECT FROM checkpoints o WHERE o.reader = a_reader AND o.source = ANY (a_sources))
      ORDER BY c.shard FOR UPDATE;
    IF FOUND THEN
        SELECT min(c.position) AS slowest, max(c.position) AS fastest, max(c.fencing_token) AS fencing_token,
               bool_or(c.owner IS NOT NULL AND c.lease_until > clock_timestamp()) AS leased
          INTO v_former FROM checkpoints c WHERE c.reader = a_reader;
        IF v_former.leased THEN RETURN 'busy'; END IF;
        IF v_former.slowest <> v_former.fastest THEN RETURN 'uneven'; END IF;
        IF cardinality(a_shards) > 1 AND EXISTS (SELECT FROM parked_keys k WHERE k.reader = a_reader)
        THEN RETURN 'parked'; END IF;
        UPDATE parked_keys k SET shard = a_shards[1] WHERE k.reader = a_reader;
        -- All are at one position, and the event there is the same.
        SELECT c.position, c.event_id, c.recorded_at INTO v_seed FROM checkpoints c
         WHERE c.reader = a_reader ORDER BY c.event_id NULLS LAST LIMIT 1;
        -- A former lease does not come to life again when its source feeds the reader again.
        v_fencing_token := v_former.fencing_token + 1;
        DELETE FROM checkpoints c WHERE c.reader = a_reader;
    END IF;
    INSERT INTO checkpoints (reader, shard, source, position, event_id, recorded_at, fencing_token)
    SELECT a_reader, s.shard, s.source, v_seed.position, v_seed.event_id, v_seed.recorded_at, v_fencing_token
      FROM unnest(a_sources, a_shards) s(source, shard)
        ON CONFLICT (reader, shard) DO NOTHING;
    RETURN 'ready';
END
$$;

-- Writes documents, each key once. Locks: the documents' rows.
CREATE FUNCTION write_documents(a_generation bigint, a_keys text[], a_documents bytea[]) RETURNS void
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
BEGIN
    -- Half the work where there can be no conflict: in the first write of a generation, which may be all of its documents, and comes
    -- in parts.
    IF cardinality(a_keys) >= 500 AND NOT EXISTS (
        SELECT FROM documents d WHERE d.generation = a_generation AND d.key >= (
              SELECT min(k.key COLLATE "C") FROM unnest(a_keys) k(key)))
    THEN
        INSERT INTO documents (generation, key, document)
        SELECT a_generation, u.key, u.document FROM unnest(a_keys, a_documents) u(key, document);
    ELSE
        INSERT INTO documents AS d (generation, key, document)
        SELECT a_generation, u.key, u.document FROM unnest(a_keys, a_documents) u(key, document)
            ON CONFLICT (generation, key) DO UPDATE SET document = excluded.document;
    END IF;
END
$$;

-- Writes documents and checkpoint together. acts: of operators, up to now; null when the checkpoint is not what the caller
-- thinks.
-- Locks: the checkpoint's row first, so that of two workers with equal claims one waits and then fails
-- the comparison; then the documents' rows.
CREATE FUNCTION commit_changes(
    a_reader bigint, a_shard text, a_fencing_token bigint, a_from bigint,
    a_position bigint, a_event_id uuid, a_recorded_at timestamptz, a_cursor text, a_ttl interval,
    a_keys text[], a_documents bytea[], a_deletes text[], OUT acts bigint)
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
BEGIN
    UPDATE checkpoints c
       SET position = a_position, event_id = a_event_id, recorded_at = a_recorded_at, cursor = a_cursor,
           lease_until = clock_timestamp() + a_ttl
     WHERE c.reader = a_reader AND c.shard = a_shard AND c.fencing_token = a_fencing_token AND c.position = a_from
    RETURNING c.acts INTO acts;
    IF NOT FOUND THEN RETURN; END IF;
    PERFORM write_documents(a_reader, a_keys, a_documents);
    DELETE FROM documents d WHERE d.generation = a_reader AND d.key = ANY (a_deletes);
END
$$;

-- Puts a building generation in the place of the serving one, unless readers would go back in time: in
-- each shard of the old one it must be as far, or, where it has no such shard because it reads from
-- another source, its slowest shard must; and its slowest shard must be as far as the slowest of the old one.
-- Versions newer than it that served before are withdrawn: only a_on_purpose makes one of them serve again.
-- outcome: 'promoted', 'behind', 'withdrawn' (serving is then the version that serves), 'not building'.
-- Locks, in this order: both readers, which keeps new checkpoints and other promotions out (NO KEY: a commit in flight may
-- reference its reader); then their checkpoints, which waits for the commits in flight. Only then are positions compared. The old
-- checkpoints go with the switch: a projector that still works on the old generation finds nothing to commit to.
CREATE FUNCTION promote_generation(
    a_id bigint, a_on_purpose boolean, OUT outcome text, OUT building bigint, OUT serving bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_projection text;
    v_version    bigint;
    v_old        bigint;
    v_newest     bigint;
    v_barred     boolean;
    v_slowest    bigint;
BEGIN
    SELECT g.projection, g.version INTO v_projection, v_version FROM generations g WHERE g.id = a_id;
    PERFORM 1 FROM readers r WHERE r.name = v_projection AND NOT r.is_retired ORDER BY r.id FOR NO KEY UPDATE;
    IF NOT EXISTS (SELECT 1 FROM generations g WHERE g.id = a_id AND g.state = 'building') THEN
        outcome := 'not building';
        RETURN;
    END IF;
    SELECT g.id, g.version, greatest(g.version, g.withdrawn), g.version > v_version OR g.withdrawn >= v_version
      INTO v_old, serving, v_newest, v_barred
      FROM generations g WHERE g.projection = v_projection AND g.state = 'serving';
    IF v_barred AND NOT a_on_purpose THEN
        outcome := 'withdrawn';
        RETURN;
    END IF;
    PERFORM 1 FROM checkpoints c WHERE c.reader IN (a_id, v_old) ORDER BY c.reader, c.shard FOR UPDATE;
    SELECT coalesce(min(c.position), 0) INTO v_slowest FROM checkpoints c WHERE c.reader = a_id;
    SELECT coalesce(n.position, v_slowest), o.position INTO building, serving
      FROM checkpoints o
      LEFT JOIN checkpoints n ON n.reader = a_id AND n.shard = o.shard
     WHERE o.reader = v_old AND coalesce(n.position, v_slowest) < o.position
     ORDER BY o.shard
     LIMIT 1;
    IF NOT FOUND THEN
        SELECT v_slowest, min(o.position) INTO building, serving FROM checkpoints o WHERE o.reader = v_old;
    END IF;
    IF building < serving THEN
        outcome := 'behind';
        RETURN;
    END IF;
    DELETE FROM checkpoints c WHERE c.reader = v_old;
    DELETE FROM generations g WHERE g.id = v_old;
    UPDATE readers r SET is_retired = true WHERE r.id = v_old;
    UPDATE generations g SET state = 'serving', withdrawn = CASE WHEN v_newest > v_version THEN v_newest ELSE 0 END
     WHERE g.id = a_id;
    PERFORM swap_table_schemas(v_old, a_id);
    outcome := 'promoted';
END
$$;

-- Locks the checkpoints of all readers of a name, of each shard, in their order. Every statement that locks several of them, or
-- something that belongs to one, begins with this or does the same: docs/decisions/lock-order.md.
CREATE FUNCTION lock_checkpoints(a_name text) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM 1 FROM checkpoints c JOIN readers r ON r.id = c.reader
      WHERE r.name = a_name AND NOT r.is_retired ORDER BY c.reader, c.shard FOR UPDATE OF c;
END
$$;

-- Locks what a promotion of a generation of a_projection locks, in the order of promote_generation(): for a transaction that does
-- something with one of its checkpoints first.
-- Locks: the readers, then their checkpoints.
CREATE FUNCTION lock_generations(a_projection text) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM 1 FROM readers r WHERE r.name = a_projection AND NOT r.is_retired ORDER BY r.id FOR NO KEY UPDATE;
    PERFORM lock_checkpoints(a_projection);
END
$$;

-- What is found of read models that are folded with an append: their generations in a_state that have a checkpoint in a_shard.
-- is_detached: paused, or keys of it are parked. A commit or an act that this waits for is seen: a statement that waits for a row sees
-- only that row anew, so all else is read when the rows are locked, and generations that have come in the place of others
-- meanwhile are locked too.
-- Locks: the checkpoints' rows, in the order of their readers.
CREATE FUNCTION inline_states(a_projections text[], a_state text, a_shard text)
RETURNS TABLE (id bigint, projection text, version bigint, definition text, is_detached boolean, fencing_token bigint, reached bigint,
               event_id uuid, recorded_at timestamptz, cursor text, is_leased boolean)
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    v_locked bigint[];
BEGIN
    LOOP
        SELECT coalesce(array_agg(l.reader), '{}') INTO v_locked
          FROM (SELECT c.reader FROM generations g JOIN checkpoints c ON c.reader = g.id AND c.shard = a_shard
                 WHERE g.projection = ANY (a_projections) AND g.state = a_state
                 ORDER BY g.id FOR UPDATE OF c) l;
        EXIT WHEN NOT EXISTS (SELECT FROM generations g JOIN checkpoints c ON c.reader = g.id AND c.shard = a_shard
                               WHERE g.projection = ANY (a_projections) AND g.state = a_state AND g.id <> ALL (v_locked));
    END LOOP;
    RETURN QUERY
    SELECT g.id, g.projection, g.version, r.definition,
           EXISTS (SELECT FROM paused_readers p WHERE p.reader = g.projection)
               OR EXISTS (SELECT FROM parked_keys k WHERE k.reader = g.id),
           c.fencing_token, c.position, c.event_id, c.recorded_at, c.cursor, c.owner IS NOT NULL
      FROM generations g
      JOIN readers r ON r.id = g.id
      JOIN checkpoints c ON c.reader = g.id AND c.shard = a_shard
     WHERE g.id = ANY (v_locked) AND g.state = a_state
     ORDER BY g.id;
END
$$;

-- Takes a building generation out of sight; no-op where it is not building (any more).
-- Locks: the reader, which keeps a promotion out; then its checkpoints, which waits for the commits in flight.
CREATE FUNCTION discard_generation(a_id bigint) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM 1 FROM readers r WHERE r.id = a_id FOR NO KEY UPDATE;
    DELETE FROM generations g WHERE g.id = a_id AND g.state = 'building';
    IF FOUND THEN
        UPDATE readers r SET is_retired = true WHERE r.id = a_id;
        -- A DELETE takes them in any order.
        PERFORM 1 FROM checkpoints c WHERE c.reader = a_id ORDER BY c.shard FOR UPDATE;
        DELETE FROM checkpoints c WHERE c.reader = a_id;
    END IF;
END
$$;

-- Deletes at most a_most documents of a retired generation, with their fields, the first one from a_generation on that no other
-- sweep is at, from the key a_from on if it is that generation; with the last of them, its reader. Returns where to go on; no row when
-- there is nothing left. It runs after the switch, which stays short; what a crash leaves is swept with the next one.
--
-- It goes on at a key, since one that began at the first would pass all that was deleted before, each time. A sweep goes
-- through a generation from its first key, so the reader is deleted last, even if another process sweeps it too.
--
-- Locks: the retired reader, then the documents, until the end of the transaction.
CREATE FUNCTION sweep_generations(a_generation bigint, a_from text, a_most bigint)
RETURNS TABLE (next_generation bigint, next_key text)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_id   bigint;
    v_from text;
    v_end  text;
BEGIN
    SELECT r.id INTO v_id FROM readers r
     WHERE r.is_retired AND r.id >= a_generation ORDER BY r.id LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF v_id IS NULL THEN
        RETURN;
    END IF;
    v_from := CASE WHEN v_id = a_generation THEN a_from ELSE '' END;
    v_end := (SELECT d.key FROM documents d WHERE d.generation = v_id AND d.key >= v_from ORDER BY d.key OFFSET a_most LIMIT 1);
    IF v_end IS NOT NULL THEN
        DELETE FROM documents d WHERE d.generation = v_id AND d.key >= v_from AND d.key < v_end;
        DELETE FROM document_fields f WHERE f.generation = v_id AND f.key >= v_from AND f.key < v_end;
        RETURN QUERY SELECT v_id, v_end;
        RETURN;
    END IF;
    DELETE FROM documents d WHERE d.generation = v_id AND d.key >= v_from;
    DELETE FROM document_fields f WHERE f.generation = v_id AND f.key >= v_from;
    PERFORM drop_table_schema(v_id);
    DELETE FROM readers r WHERE r.id = v_id;
    RETURN QUERY SELECT v_id + 1, '';
END
$$;
