-- Takes the append lock: from here to the end of the transaction no other session appends to this schema.
--
-- It must be called from plpgsql before anything is read, since each statement of a plpgsql function
-- takes a fresh snapshot: the server gives the lock on only after the former holder's commit is visible,
-- so a session that reads under it sees every position that was ever handed out. The second half of the key is
-- the oid that the schema has now, which no other one of the database shares. (After a restore another
-- schema may have that oid: then the two share an append lock, which costs time and nothing else.)
--
-- Call it in an expression: the planner puts its body in its place, and an expression spares the
-- executor's start and end, which a statement costs.
DO $do$
BEGIN
    EXECUTE format(
        'CREATE FUNCTION take_append_lock() RETURNS boolean LANGUAGE sql AS $$ SELECT pg_advisory_xact_lock(25971, %s) IS NOT NULL $$',
        current_schema()::text::regnamespace::oid::int);
END
$do$;

-- What a statement of a store calls when it does not run in the session, the schema and the settings that it was written
-- for (src/guard.rs). Stable, so that the condition is looked at once and before any row.
CREATE FUNCTION refuse_session() RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RAISE EXCEPTION 'this is not the session that the store has opened, or its settings were changed'
        USING ERRCODE = 'ES002';
END
$$;

-- Writes all of a batch and returns the last position before it, the time of all its events in microseconds since 1970,
-- and the last versions of the streams in l_stream. Null if an entry cannot be written, for any reason: append_batch()
-- tells which and why. That no stream has gone on after the expected version, and that no command was made before, is left
-- to the unique indexes: what will be so is not looked up.
--   h_*: one element a stream whose end is checked: its last version, and its last event and its time, or null. (Of the
--        others the session knows that they have come so far: it has written that itself, or expects
--        nothing in them.)
--   l_*: one element a stream whose end is looked up, since any end is expected.
--   e_*: one element an event, in the order of the log. e_version: its version; if e_after (empty if l_stream is) names one
--        of the streams that are looked up, counted from the end of that stream.
--   c_*: one element a command to remember; c_event: which of all events is its last one.
--   t_*: one element a tag: of which event.
--   q_*: one element an item of a condition: no event after q_after has the tag q_tag and matches the item q_item, which is
--        null if it asks for nothing but the tag.
-- Locks: the append lock until the end of the transaction, and what INSERT takes. For the session see
-- append_in_transaction().
CREATE FUNCTION append_all(
    h_stream text[], h_version bigint[], h_last uuid[], h_time timestamptz[], l_stream text[],
    e_after int[], e_version bigint[],
    e_stream text[], e_id uuid[], e_type text[], e_schema int[], e_payload bytea[], e_metadata bytea[],
    c_event int[], c_stream text[], c_id uuid[], c_fingerprint bytea[],
    t_event int[], t_type text[], t_tag text[],
    q_after bigint[], q_tag text[], q_item text[])
RETURNS bigint[]
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    base bigint;        -- the last position handed out
    at   timestamptz;
    ends bigint[];      -- the last versions of the streams that are looked up
BEGIN
    IF NOT take_append_lock() THEN
        RETURN NULL;
    END IF;
    IF cardinality(h_stream) > 0 AND EXISTS (
        SELECT FROM unnest(h_stream, h_version, h_last, h_time) u(stream, version, last, time)
          LEFT JOIN LATERAL (SELECT e.version, e.event_id, e.recorded_at FROM events e WHERE e.stream = u.stream
                              ORDER BY e.version DESC LIMIT 1) h ON true
         WHERE h.version IS DISTINCT FROM u.version OR h.event_id <> u.last OR h.recorded_at <> u.time)
    THEN
        RETURN NULL;
    END IF;
    -- (CASE decides that the cheap question comes first.)
    IF cardinality(q_tag) > 0 AND EXISTS (
        SELECT FROM unnest(q_after, q_tag, q_item) q(after, tag, item)
         WHERE CASE WHEN NOT EXISTS (SELECT FROM event_tags e WHERE e.tag = q.tag AND e.position > q.after) THEN false
                    ELSE q.item IS NULL OR EXISTS (SELECT FROM matching(q.item::jsonb, q.after, 1)) END)
    THEN
        RETURN NULL;
    END IF;
    IF cardinality(l_stream) > 0 THEN
        SELECT array_agg(coalesce(h.version, 0) ORDER BY u.ord)
          INTO ends
          FROM unnest(l_stream) WITH ORDINALITY u(stream, ord)
          LEFT JOIN LATERAL (SELECT e.version FROM events e WHERE e.stream = u.stream
                              ORDER BY e.version DESC LIMIT 1) h ON true;
        SELECT array_agg(u.version + coalesce(ends[u.after], 0) ORDER BY u.ord)
          INTO e_version
          FROM unnest(e_after, e_version) WITH ORDINALITY u(after, version, ord);
    END IF;
    base := coalesce((SELECT e.position FROM events e ORDER BY e.position DESC LIMIT 1), 0);
    at := clock_timestamp();
    INSERT INTO events (position, version, recorded_at, event_id, schema_version, stream, type, payload, metadata)
    SELECT base + generate_series(1, cardinality(e_id)), unnest(e_version), at, unnest(e_id), unnest(e_schema),
           unnest(e_stream), unnest(e_type), unnest(e_payload), unnest(e_metadata);
    IF cardinality(c_id) > 0 THEN
        INSERT INTO commands (id, stream, version, position, fingerprint)
        SELECT c.id, c.stream, e_version[c.event], base + c.event, c.fingerprint
          FROM unnest(c_event, c_stream, c_id, c_fingerprint) c(event, stream, id, fingerprint);
    END IF;
    IF cardinality(t_tag) > 0 THEN
        INSERT INTO event_tags (tag, position, type)
        SELECT unnest(t_tag), base + unnest(t_event), unnest(t_type);
    END IF;
    RETURN ARRAY[base, (extract(epoch FROM at) * 1000000)::bigint] || ends;
EXCEPTION WHEN unique_violation THEN
    RETURN NULL;
END
$$;

-- The positions after `after` of the events that match `query`, in order, at most `most` of them.
--
-- query: [{"tags": [...], "names": [...]}, ...]: an event matches an item if it has all its tags and,
-- unless there are none, one of its names. Each item is looked up by its first tag; for one without tags the log is
-- gone through from `after` on. (Only one of the two is executed for an item: the other's filter is false before it
-- begins.) No locks.
-- OFFSET 0 keeps the planner from reading all tags for a hash (src/sql/session.sql).
CREATE FUNCTION matching(query jsonb, after bigint, most bigint) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE ROWS 1 AS $$
BEGIN
    RETURN QUERY
    SELECT DISTINCT m.position
      FROM jsonb_array_elements(query) i(item)
     CROSS JOIN LATERAL (
          (SELECT e.position
             FROM event_tags e
            WHERE e.tag = i.item -> 'tags' ->> 0
              AND e.position > after
              AND (i.item -> 'names' = '[]' OR i.item -> 'names' ? e.type)
              AND NOT EXISTS (SELECT FROM jsonb_array_elements_text(i.item -> 'tags') t(tag)
                               WHERE NOT EXISTS (SELECT FROM event_tags o
                                                  WHERE o.tag = t.tag AND o.position = e.position
                                                 OFFSET 0))
            ORDER BY e.position
            LIMIT most)
           UNION ALL
          (SELECT e.position
             FROM events e
            WHERE i.item -> 'tags' = '[]'
              AND e.position > after
              AND (i.item -> 'names' = '[]' OR i.item -> 'names' ? e.type)
            ORDER BY e.position
            LIMIT most)) m
     ORDER BY m.position
     LIMIT most;
END
$$;

-- Gives the rows after the negative position `behind` their places in the log, after `base`, and in their streams.
--
-- It has the rights of the owner, so that the application's role needs none to update: no row that has a place is
-- touched. Its body is bound to the table, so no search path leads it elsewhere.
CREATE FUNCTION number_events(behind bigint, base bigint, versions bigint[], e_append int[], e_seq int[]) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER
BEGIN ATOMIC
    UPDATE events e
       SET position = base + e.position - behind,
           version = versions[e_append[(e.position - behind)::int]] + e_seq[(e.position - behind)::int],
           recorded_at = clock_timestamp()
     WHERE e.position > behind AND e.position <= behind + cardinality(e_seq) AND e.position < 0;
END;

-- Writes the entries of a batch, each whole or not at all, and returns what became of them.
--
-- An entry is what goes into one stream side by side: one append, or several that build on each other.
--   a_*: one element an entry. a_expected: n exactly n events, -1 anything, -2 at least one. a_last, a_time: the
--        event with which the stream must end and its time, or null. a_wave: within a wave no two entries touch each
--        other, so that a batch means the same as its entries one after the other. a_first_id: the id of
--        its first event. a_group: entries with the same number are written together or not at all
--        (empty: each for itself).
--   e_*: one element an event, in the order of the entries; e_append numbers the entries from 1, e_seq the
--        events of an entry.
--   c_*: one element a command to remember; c_event: which of all events is its last one.
--   t_*: one element a tag: of which event.
--   q_*: one element an item of a condition: of which entry; no event after q_after has the tag q_tag (unless that is null)
--        and matches the item q_item (see matching()), which is null if it asks for nothing but the tag.
--   e_behind: null, or the rows of the events are there already, after this position, which is negative
--        (append_large()).
--
-- A row for each wave: log_base is the last position before it, versions the versions of the streams
-- before it (for the entries of the wave), places the position before the first event of an entry, -1 if
-- it was not written; null if all were written, one after the other from log_base on.
-- f_*: one element an entry of the wave that was not written. f_status: 1 conflict (f_version is the
-- actual one), 2 made earlier (its outcome: version, and position of the last event), 3 the key was used
-- by another command, 4 condition failed (f_position matches), 5 possible, but not with its group.
--
-- Locks: the append lock until the end of the transaction, and what INSERT takes.
--
-- Arrays of variable-length elements are unnested once and never subscripted, which would walk them from
-- the start each time. The frame says ROWS because the default, RANGE, compares peers.
--
-- The session must see this schema first and plan as session.sql has it; see append_in_transaction().
CREATE FUNCTION append_batch(
    waves int, a_stream text[], a_expected bigint[], a_last uuid[], a_time timestamptz[], a_count int[], a_wave int[], a_first_id uuid[],
    a_group int[],
    e_append int[], e_seq int[], q_append int[],
    e_stream text[], e_id uuid[], e_type text[], e_schema int[], e_payload bytea[], e_metadata bytea[],
    c_event int[], c_stream text[], c_id uuid[], c_fingerprint bytea[],
    t_event int[], t_type text[], t_tag text[],
    q_after bigint[], q_tag text[], q_item text[],
    e_behind bigint DEFAULT NULL)
RETURNS TABLE (
    wave int, log_base bigint, versions bigint[], places bigint[],
    f_append int[], f_status int[], f_version bigint[], f_position bigint[])
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    base      bigint;       -- the last position handed out
    v_ok      boolean[];    -- whether an entry is written in this wave
    v_fits    boolean[];    -- the same before its group is asked
    v_matched bigint[];     -- what fails an entry's condition
    added     bigint;       -- how many positions this wave takes
    found     record;
BEGIN
    IF NOT take_append_lock() THEN
        RETURN;
    END IF;

    FOR w IN 1 .. waves LOOP
        SELECT array_agg(u.wave = w
                         AND CASE u.expected WHEN -1 THEN true
                                             WHEN -2 THEN h.version IS NOT NULL
                                             ELSE coalesce(h.version, 0) = u.expected END
                         AND (u.last IS NULL OR h.event_id IS NOT DISTINCT FROM u.last)
                         AND (u.time IS NULL OR h.recorded_at IS NOT DISTINCT FROM u.time) ORDER BY u.ord),
               array_agg(coalesce(h.version, 0) ORDER BY u.ord),
               coalesce((SELECT e.position FROM events e WHERE e.position > 0 ORDER BY e.position DESC LIMIT 1), 0)
          INTO v_ok, versions, base
          FROM unnest(a_stream, a_expected, a_last, a_time, a_wave)
               WITH ORDINALITY u(stream, expected, last, time, wave, ord)
          LEFT JOIN LATERAL (SELECT e.version, e.event_id, e.recorded_at FROM events e
                              WHERE e.stream = CASE WHEN u.wave = w THEN u.stream END AND e.version > 0
                              ORDER BY e.version DESC LIMIT 1) h ON true;

        -- What was done before is not done again, whatever the stream's version.
        IF cardinality(c_id) > 0 THEN
            FOR found IN SELECT e_append[c.event] AS append FROM unnest(c_event, c_id) c(event, id)
                          WHERE a_wave[e_append[c.event]] = w AND EXISTS (SELECT FROM commands k WHERE k.id = c.id OFFSET 0)
            LOOP
                v_ok[found.append] := false;
            END LOOP;
        END IF;

        IF cardinality(q_append) > 0 THEN
            v_matched := array_fill(NULL::bigint, ARRAY[cardinality(a_count)]);
            FOR found IN SELECT q.append, m.position
                           FROM unnest(q_append, q_after, q_tag, q_item) q(append, after, tag, item)
                           LEFT JOIN LATERAL (SELECT e.position FROM event_tags e
                                               WHERE e.tag = q.tag AND e.position > q.after
                                               ORDER BY e.position LIMIT 1) t ON true
                          CROSS JOIN LATERAL (SELECT CASE WHEN q.tag IS NOT NULL AND t.position IS NULL THEN NULL
                                                          WHEN q.item IS NULL THEN t.position
                                                          ELSE (SELECT i FROM matching(q.item::jsonb, q.after, 1) i)
                                                      END AS position) m
                          WHERE v_ok[q.append] AND m.position IS NOT NULL
            LOOP
                v_ok[found.append] := false;
                v_matched[found.append] := least(v_matched[found.append], found.position);
            END LOOP;
        END IF;

        v_fits := v_ok;
        IF cardinality(a_group) > 0 THEN
            FOR found IN SELECT g.ord
                           FROM (SELECT u.ord, u.fits, bool_and(u.fits) OVER (PARTITION BY u.grp) AS all_fit
                                   FROM unnest(v_fits, a_group) WITH ORDINALITY u(fits, grp, ord)) g
                          WHERE g.fits AND NOT g.all_fit
            LOOP
                v_ok[found.ord] := false;
            END LOOP;
        END IF;

        IF true = ALL (v_ok) THEN
            places := NULL;
            added := cardinality(e_id);
        ELSE
            SELECT array_agg(CASE WHEN z.ok THEN base + z.upto - z.cnt ELSE -1 END ORDER BY z.ord),
                   coalesce(max(z.upto), 0)
              INTO places, added
              FROM (SELECT u.ord, u.ok, u.cnt, sum(CASE WHEN u.ok THEN u.cnt ELSE 0 END)
                                                 OVER (ORDER BY u.ord ROWS UNBOUNDED PRECEDING) AS upto
                      FROM unnest(v_ok, a_count) WITH ORDINALITY u(ok, cnt, ord)) z;
        END IF;

        IF added > 0 THEN
            IF e_behind IS NULL THEN
                INSERT INTO events (position, version, event_id, schema_version, stream, type, payload, metadata)
                SELECT coalesce(places[e.append] + e.seq, base + e.ord), versions[e.append] + e.seq,
                       e.id, e.schema, e.stream, e.type, e.payload, e.metadata
                  FROM unnest(e_append, e_seq, e_stream, e_id, e_type, e_schema, e_payload, e_metadata)
                       WITH ORDINALITY e(append, seq, stream, id, type, schema, payload, metadata, ord)
                 WHERE v_ok[e.append];
            ELSE
                PERFORM number_events(e_behind, base, versions, e_append, e_seq);
            END IF;

            IF cardinality(c_id) > 0 THEN
                INSERT INTO commands (id, stream, version, position, fingerprint)
                SELECT c.id, c.stream, versions[e_append[c.event]] + e_seq[c.event],
                       coalesce(places[e_append[c.event]] + e_seq[c.event], base + c.event), c.fingerprint
                  FROM unnest(c_event, c_stream, c_id, c_fingerprint) c(event, stream, id, fingerprint)
                 WHERE v_ok[e_append[c.event]];
            END IF;

            IF cardinality(t_tag) > 0 THEN
                INSERT INTO event_tags (tag, position, type)
                SELECT t.tag, coalesce(places[e_append[t.event]] + e_seq[t.event], base + t.event), t.type
                  FROM unnest(t_event, t_type, t_tag) t(event, type, tag)
                 WHERE v_ok[e_append[t.event]];
            END IF;
        END IF;

        IF places IS NULL THEN
            f_append := NULL;
        ELSE
            SELECT array_agg(u.ord::int),
                   array_agg(CASE WHEN k.fingerprint IS NOT NULL THEN CASE WHEN k.same THEN 2 ELSE 3 END
                                  WHEN d.position IS NOT NULL THEN 2
                                  WHEN v_matched[u.ord] IS NOT NULL THEN 4
                                  WHEN v_fits[u.ord] THEN 5
                                  ELSE 1 END),
                   array_agg(CASE WHEN k.fingerprint IS NOT NULL THEN k.version
                                  WHEN d.position IS NOT NULL THEN u.expected + u.cnt
                                  ELSE versions[u.ord] END),
                   array_agg(CASE WHEN k.fingerprint IS NOT NULL THEN k.position
                                  WHEN d.position IS NOT NULL THEN d.position + u.cnt - 1
                                  ELSE v_matched[u.ord] END)
              INTO f_append, f_status, f_version, f_position
              FROM unnest(a_stream, a_expected, a_count, a_wave, a_first_id)
                   WITH ORDINALITY u(stream, expected, cnt, wave, first_id, ord)
              LEFT JOIN LATERAL (SELECT o.version, o.position, o.fingerprint, o.fingerprint = c.fingerprint AS same
                                   FROM unnest(c_event, c_id, c_fingerprint) c(event, id, fingerprint)
                                  CROSS JOIN LATERAL (SELECT * FROM commands o WHERE o.id = c.id LIMIT 1) o
                                  WHERE e_append[c.event] = u.ord
                                  LIMIT 1) k ON true
              -- The append comes again when the event after the version that it expects is its own first one.
              LEFT JOIN LATERAL (SELECT e.position FROM events e
                                  WHERE e.stream = CASE WHEN u.expected >= 0 AND NOT v_fits[u.ord] THEN u.stream END
                                    AND e.version = u.expected + 1 AND e.event_id = u.first_id) d ON true
             WHERE u.wave = w AND NOT v_ok[u.ord];
        END IF;

        wave := w;
        log_base := base;
        RETURN NEXT;
    END LOOP;
END
$$;

-- The same for one request of large events, whose rows are written before the append lock is taken. The server takes long to
-- compress and log them (64 MB: from 0.3 s to 6 s), and meanwhile others append; under the append lock the rows only get their
-- numbers, for which those parts of them are written again that are not stored apart (1 ms for 64 rows, 100 ms for 10,000).
--
-- Until then they stand at negative positions and versions, which no other transaction has. If the request is not to be
-- written, they are taken back.
--
-- Locks: what INSERT takes, then those of append_batch().
CREATE FUNCTION append_large(
    waves int, a_stream text[], a_expected bigint[], a_last uuid[], a_time timestamptz[], a_count int[], a_wave int[], a_first_id uuid[],
    a_group int[],
    e_append int[], e_seq int[], q_append int[],
    e_stream text[], e_id uuid[], e_type text[], e_schema int[], e_payload bytea[], e_metadata bytea[],
    c_event int[], c_stream text[], c_id uuid[], c_fingerprint bytea[],
    t_event int[], t_type text[], t_tag text[],
    q_after bigint[], q_tag text[], q_item text[])
RETURNS TABLE (
    wave int, log_base bigint, versions bigint[], places bigint[],
    f_append int[], f_status int[], f_version bigint[], f_position bigint[])
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    behind bigint := -cardinality(e_id) - (random() * 4e18)::bigint;
BEGIN
    BEGIN
        INSERT INTO events (position, version, event_id, schema_version, stream, type, payload, metadata)
        SELECT behind + e.ord, behind + e.ord, e.id, e.schema, e.stream, e.type, e.payload, e.metadata
          FROM unnest(e_stream, e_id, e_type, e_schema, e_payload, e_metadata)
               WITH ORDINALITY e(stream, id, type, schema, payload, metadata, ord);

        SELECT b.wave, b.log_base, b.versions, b.places, b.f_append, b.f_status, b.f_version, b.f_position
          INTO wave, log_base, versions, places, f_append, f_status, f_version, f_position
          FROM append_batch(waves, a_stream, a_expected, a_last, a_time, a_count, a_wave, a_first_id, a_group,
                            e_append, e_seq, q_append, e_stream, e_id, e_type, e_schema, '{}', '{}',
                            c_event, c_stream, c_id, c_fingerprint, t_event, t_type, t_tag,
                            q_after, q_tag, q_item, behind) b;
        IF f_append IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'ES003';
        END IF;
    EXCEPTION WHEN SQLSTATE 'ES003' THEN
        NULL;
    END;
    RETURN NEXT;
END
$$;

-- The same for sessions that are not the store's own. The settings are measured: the default plan choice
-- plans each call anew (428 instead of 142 us for a lone append); a plan made while the table was empty would
-- keep its sequential scan until the next ANALYZE; and a plan that looks expensive would be compiled. To
-- make them here costs 30 us a call, so the store's own sessions make them once (session.sql).
--
-- a_schema: the name that this schema has now. A function does not know where it is, and a path that was set when it was
-- created would lead elsewhere once the schema is renamed. What is set here ends with the call, since the function sets
-- the path too.
DO $do$
DECLARE
    arguments text := pg_get_function_arguments('append_batch'::regproc);
    names     text := (SELECT string_agg('$' || n + 1, ', ' ORDER BY n) FROM generate_series(1, 29) n);
BEGIN
    EXECUTE format($sql$
        CREATE FUNCTION append_in_transaction(a_schema text, %s) %s LANGUAGE plpgsql VOLATILE
        SET search_path = pg_catalog
        SET plpgsql.extra_errors = 'none'
        SET plpgsql.extra_warnings = 'none'
        SET plan_cache_mode = force_generic_plan
        SET enable_seqscan = off
        SET enable_bitmapscan = off
        SET jit = off
        AS $$
        BEGIN
            PERFORM set_config('search_path', a_schema || ',pg_temp', true);
            RETURN QUERY SELECT * FROM append_batch(%s);
        END
        $$ $sql$,
        arguments, 'RETURNS ' || pg_get_function_result('append_batch'::regproc), names);
END
$do$;
