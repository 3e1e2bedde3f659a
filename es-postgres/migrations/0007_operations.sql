-- Keys of which an event could not be handled. Only the worker that holds the shard adds and deletes rows; operators ask for a
-- retry. Rows of a retired reader are invisible and go with it.
CREATE TABLE parked_keys (
    reader             bigint  NOT NULL REFERENCES readers ON DELETE CASCADE,
    key                text    COLLATE "C" NOT NULL,
    shard              text    COLLATE "C" NOT NULL,
    is_retry_requested boolean NOT NULL DEFAULT false,
    CONSTRAINT parked_keys_key PRIMARY KEY (reader, key)
);

-- The first event of a key that failed, and all later ones of the key.
CREATE TABLE dead_letters (
    reader         bigint      NOT NULL,
    key            text        COLLATE "C" NOT NULL,
    position       bigint      NOT NULL,
    event_id       uuid        NOT NULL,    -- the event as the source delivered it, up to metadata
    stream         text        COLLATE "C" NOT NULL,
    version        bigint      NOT NULL,
    type           text        COLLATE "C" NOT NULL,
    schema_version integer     NOT NULL,
    recorded_at    timestamptz NOT NULL,
    payload        bytea       NOT NULL,
    metadata       bytea,
    edited         bytea,                   -- the payload that an operator has put in place of the other
    cause          text,                    -- why it failed; null: it waits behind an earlier letter of its key
    attempts       bigint      NOT NULL,
    parked_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    revision       bigint      NOT NULL DEFAULT 1, -- grows with each change
    CONSTRAINT dead_letters_position PRIMARY KEY (reader, key, position),
    CONSTRAINT dead_letters_key FOREIGN KEY (reader, key) REFERENCES parked_keys ON DELETE CASCADE
);

-- The last event at which a reader stopped, in each shard. It is there for as long as the checkpoint is before it.
CREATE TABLE stops (
    reader      bigint      NOT NULL REFERENCES readers ON DELETE CASCADE,
    shard       text        COLLATE "C" NOT NULL,
    position    bigint      NOT NULL,
    event_id    uuid        NOT NULL,
    recorded_at timestamptz NOT NULL,
    cause       text        NOT NULL,
    stopped_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT stops_shard PRIMARY KEY (reader, shard)
);

-- What a reader does with an event otherwise than to handle it as the log has it, since an operator has decided so. The act that
-- decides writes it. Rows go with their reader.
CREATE TABLE amendments (
    reader   bigint NOT NULL REFERENCES readers ON DELETE CASCADE,
    position bigint NOT NULL,
    key      text   COLLATE "C" NOT NULL, -- whose dead letter was edited or discarded; '': all keys of the shard
    shard    text   COLLATE "C" NOT NULL, -- where the event was skipped; '' where a key is given
    payload  bytea,                       -- what is handled instead; null: the event is left out
    CONSTRAINT amendments_event PRIMARY KEY (reader, position, key, shard)
);

CREATE TABLE paused_readers (
    reader    text        COLLATE "C" NOT NULL,
    actor     text        NOT NULL,
    reason    text        NOT NULL,
    paused_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT paused_readers_reader PRIMARY KEY (reader)
);

-- What operators did. An application's role can add rows and not change them.
CREATE TABLE acts (
    id       bigint      GENERATED ALWAYS AS IDENTITY,
    acted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor    text        NOT NULL,
    reason   text        NOT NULL,
    what     text        NOT NULL,
    reader   text        COLLATE "C" NOT NULL,
    target   text        COLLATE "C",       -- a key, or a shard
    position bigint,
    CONSTRAINT acts_id PRIMARY KEY (id)
);

-- Records an act and lets the workers of a_reader know: their next commit or renewal returns another number.
-- Locks: the checkpoints of the reader, in their order. An act that locks something else has locked these before:
-- docs/decisions/lock-order.md.
CREATE FUNCTION note_act(
    a_what text, a_reader text, a_target text, a_position bigint, a_actor text, a_reason text)
RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO acts (actor, reason, what, reader, target, position)
    VALUES (a_actor, a_reason, a_what, a_reader, a_target, a_position);
    PERFORM lock_checkpoints(a_reader);
    UPDATE checkpoints c SET acts = c.acts + 1
      FROM readers r WHERE r.id = c.reader AND r.name = a_reader AND NOT r.is_retired;
END
$$;

-- A commit with dead letters. a_letter_keys and the arrays after it are new letters. a_handled are the letters under a_key that
-- were handled again, of the revisions a_revisions; the one at a_failed has failed again, because of a_cause; a_is_whole says that
-- there were no others.
-- outcome: 'committed'; 'edited' when one of the letters is not of that revision any more; 'fenced' as for commit_changes().
-- Locks: the checkpoint, which operators' acts lock first too; then the letters that were handled again, the documents, and the parked
-- keys.
CREATE FUNCTION commit_letters(
    a_reader bigint, a_shard text, a_fencing_token bigint, a_from bigint,
    a_position bigint, a_event_id uuid, a_recorded_at timestamptz, a_cursor text, a_ttl interval,
    a_keys text[], a_documents bytea[], a_deletes text[],
    a_letter_keys text[], a_positions bigint[], a_event_ids uuid[], a_streams text[], a_versions bigint[], a_types text[],
    a_schema_versions integer[], a_times timestamptz[], a_payloads bytea[], a_metadata bytea[], a_causes text[],
    a_attempts bigint[],
    a_key text, a_handled bigint[], a_revisions bigint[], a_failed bigint, a_cause text, a_is_whole boolean,
    OUT outcome text, OUT acts bigint)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF a_key IS NOT NULL THEN
        PERFORM 1 FROM checkpoints c WHERE c.reader = a_reader AND c.shard = a_shard FOR UPDATE;
    END IF;
    PERFORM 1 FROM dead_letters l
      WHERE l.reader = a_reader AND l.key = a_key AND l.position = ANY (a_handled) ORDER BY l.position FOR UPDATE;
    IF (SELECT count(*) FROM dead_letters l JOIN unnest(a_handled, a_revisions) h(position, revision) USING (position, revision)
         WHERE l.reader = a_reader AND l.key = a_key) <> cardinality(a_handled)
    THEN
        outcome := 'edited';
        RETURN;
    END IF;
    acts := commit_changes(a_reader, a_shard, a_fencing_token, a_from, a_position, a_event_id, a_recorded_at, a_cursor,
                           a_ttl, a_keys, a_documents, a_deletes);
    IF acts IS NULL THEN
        outcome := 'fenced';
        RETURN;
    END IF;
    INSERT INTO parked_keys (reader, key, shard)
    SELECT DISTINCT a_reader, n.key, a_shard FROM unnest(a_letter_keys) n(key)
        ON CONFLICT DO NOTHING;
    INSERT INTO dead_letters (reader, key, position, event_id, stream, version, type, schema_version, recorded_at,
                              payload, metadata, cause, attempts)
    SELECT a_reader, n.*
      FROM unnest(a_letter_keys, a_positions, a_event_ids, a_streams, a_versions, a_types, a_schema_versions, a_times,
                  a_payloads, a_metadata, a_causes, a_attempts) n;
    DELETE FROM dead_letters l
     WHERE l.reader = a_reader AND l.key = a_key AND l.position = ANY (a_handled)
       AND l.position IS DISTINCT FROM a_failed;
    IF a_failed IS NOT NULL THEN
        UPDATE dead_letters l SET cause = a_cause, attempts = l.attempts + 1, revision = l.revision + 1
         WHERE l.reader = a_reader AND l.key = a_key AND l.position = a_failed;
        UPDATE parked_keys k SET is_retry_requested = false WHERE k.reader = a_reader AND k.key = a_key;
    END IF;
    DELETE FROM parked_keys k
     WHERE a_is_whole AND k.reader = a_reader AND k.key = a_key
       AND NOT EXISTS (SELECT FROM dead_letters l WHERE l.reader = a_reader AND l.key = a_key);
    outcome := 'committed';
END
$$;

-- Asks the workers of a_reader to handle the letters under a_key again; false when the key is not parked.
-- Locks: as note_act(); then the parked keys.
CREATE FUNCTION request_retry(a_reader text, a_key text, a_actor text, a_reason text) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM lock_checkpoints(a_reader);
    UPDATE parked_keys k SET is_retry_requested = true
      FROM readers r WHERE r.id = k.reader AND r.name = a_reader AND NOT r.is_retired AND k.key = a_key;
    IF NOT FOUND THEN RETURN false; END IF;
    PERFORM note_act('retry', a_reader, a_key, NULL, a_actor, a_reason);
    RETURN true;
END
$$;

-- Deletes the letter at a_position under a_key, or all letters under it where that is null. discarded: how many; null when
-- the key is not parked. A key without letters is freed by its worker, which may have parked another event meanwhile.
-- Locks: as note_act(); then the letters, and the parked keys.
CREATE FUNCTION discard_letters(
    a_reader text, a_key text, a_position bigint, a_actor text, a_reason text, OUT discarded bigint)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM lock_checkpoints(a_reader);
    IF NOT EXISTS (SELECT FROM parked_keys k JOIN readers r ON r.id = k.reader
                    WHERE r.name = a_reader AND NOT r.is_retired AND k.key = a_key)
    THEN RETURN; END IF;
    WITH gone AS (
        DELETE FROM dead_letters l USING readers r
         WHERE r.id = l.reader AND r.name = a_reader AND NOT r.is_retired AND l.key = a_key
           AND (a_position IS NULL OR l.position = a_position)
        RETURNING l.reader, l.position, l.key
    ), amended AS (
        INSERT INTO amendments (reader, position, key, shard)
        SELECT g.reader, g.position, g.key, '' FROM gone g
            ON CONFLICT ON CONSTRAINT amendments_event DO UPDATE SET payload = NULL
    )
    SELECT count(*) INTO discarded FROM gone;
    IF discarded = 0 AND a_position IS NOT NULL THEN RETURN; END IF;
    UPDATE parked_keys k SET is_retry_requested = true
      FROM readers r WHERE r.id = k.reader AND r.name = a_reader AND NOT r.is_retired AND k.key = a_key
       AND NOT EXISTS (SELECT FROM dead_letters l WHERE l.reader = k.reader AND l.key = k.key);
    PERFORM note_act('discard', a_reader, a_key, a_position, a_actor, a_reason);
END
$$;

-- Replaces the payload in a letter; false when there is no such letter.
-- Locks: as note_act(); then the letter.
CREATE FUNCTION edit_letter(
    a_reader text, a_key text, a_position bigint, a_payload bytea, a_actor text, a_reason text)
RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM lock_checkpoints(a_reader);
    WITH edited AS (
        UPDATE dead_letters l SET edited = a_payload, revision = l.revision + 1
          FROM readers r WHERE r.id = l.reader AND r.name = a_reader AND NOT r.is_retired
           AND l.key = a_key AND l.position = a_position
        RETURNING l.reader
    )
    INSERT INTO amendments (reader, position, key, shard, payload)
    SELECT e.reader, a_position, a_key, '', a_payload FROM edited e
        ON CONFLICT ON CONSTRAINT amendments_event DO UPDATE SET payload = a_payload;
    IF NOT FOUND THEN RETURN false; END IF;
    PERFORM note_act('edit', a_reader, a_key, a_position, a_actor, a_reason);
    RETURN true;
END
$$;

-- Pauses a_reader; false when there is no such reader. A first pause stays.
-- Locks: as note_act(); then the pause.
CREATE FUNCTION pause_reader(a_reader text, a_actor text, a_reason text) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM readers r WHERE r.name = a_reader AND NOT r.is_retired)
    THEN RETURN false; END IF;
    PERFORM lock_checkpoints(a_reader);
    INSERT INTO paused_readers (reader, actor, reason) VALUES (a_reader, a_actor, a_reason) ON CONFLICT DO NOTHING;
    PERFORM note_act('pause', a_reader, NULL, NULL, a_actor, a_reason);
    RETURN true;
END
$$;

-- Lets a_reader continue; false when it is not paused.
-- Locks: as note_act(); then the pause.
CREATE FUNCTION resume_reader(a_reader text, a_actor text, a_reason text) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM lock_checkpoints(a_reader);
    DELETE FROM paused_readers p WHERE p.reader = a_reader;
    IF NOT FOUND THEN RETURN false; END IF;
    PERFORM note_act('resume', a_reader, NULL, NULL, a_actor, a_reason);
    RETURN true;
END
$$;

-- Moves the checkpoint of a_reader past the event at which it has stopped; false when it has not stopped at this event, or is
-- past it. A worker that is about to commit something else there fails the comparison of positions.
-- Locks: as note_act().
CREATE FUNCTION skip_event(
    a_reader text, a_shard text, a_position bigint, a_event_id uuid, a_actor text, a_reason text)
RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM lock_checkpoints(a_reader);
    WITH skipped AS (
        UPDATE checkpoints c SET position = s.position, event_id = s.event_id, recorded_at = s.recorded_at
          FROM readers r, stops s
         WHERE r.id = c.reader AND r.name = a_reader AND NOT r.is_retired
           AND s.reader = c.reader AND s.shard = c.shard
           AND c.shard = a_shard AND s.position = a_position AND s.event_id = a_event_id AND c.position < a_position
        RETURNING c.reader
    )
    INSERT INTO amendments (reader, position, key, shard)
    SELECT s.reader, a_position, '', a_shard FROM skipped s
        ON CONFLICT ON CONSTRAINT amendments_event DO UPDATE SET payload = NULL;
    IF NOT FOUND THEN RETURN false; END IF;
    PERFORM note_act('skip', a_reader, a_shard, a_position, a_actor, a_reason);
    RETURN true;
END
$$;

-- Takes the generation of a_reader that is being built out of sight; false when none is.
-- Locks: as lock_generations(), since discard_generation() locks the readers and checkpoints of what is built alone, and note_act()
-- those of what serves too.
CREATE FUNCTION cancel_rebuild(a_reader text, a_actor text, a_reason text) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_id bigint;
BEGIN
    PERFORM lock_generations(a_reader);
    SELECT g.id INTO v_id FROM generations g WHERE g.projection = a_reader AND g.state = 'building';
    IF NOT FOUND THEN RETURN false; END IF;
    PERFORM discard_generation(v_id);
    -- It was promoted meanwhile.
    IF EXISTS (SELECT FROM generations g WHERE g.id = v_id) THEN RETURN false; END IF;
    PERFORM note_act('cancel-rebuild', a_reader, NULL, NULL, a_actor, a_reason);
    RETURN true;
END
$$;
