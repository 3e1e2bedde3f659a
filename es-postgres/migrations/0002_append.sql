-- Takes the lane: from here to the end of the transaction nobody else appends to this schema.
--
-- It must be called from plpgsql before anything is read, since each statement of a plpgsql function
-- takes a fresh snapshot: the server gives the lock on only after the former holder's commit is visible,
-- so whoever reads under it sees every position that was ever handed out. The second half of the key is
-- the schema's oid, which no other schema of the database shares.
CREATE FUNCTION take_lane() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(25971, (SELECT oid::int FROM pg_namespace WHERE nspname = current_schema()));
END
$$;

-- Writes the appends of a batch, each whole or not at all, and returns a verdict for each.
--
-- a_*: one entry an append. a_expected: n exactly n events, -1 anything, -2 at least one. a_wave: 1 + the
-- wave of the append before it on the same stream, so that within a wave no two appends touch each other
-- and a batch means the same as its appends one after the other. a_command and a_fingerprint: what to
-- remember, or null. e_*: one entry an event, in the order of the appends; e_append counts from 1, e_seq
-- too within the append.
--
-- status: 0 appended, 1 conflict (stream_version is the actual one), 2 appended earlier (its outcome),
-- 3 the key was used by another command. log_position is that of the append's last event.
--
-- Locks: the lane until the end of the transaction, and what INSERT takes.
--
-- The settings are measured: the default plan choice plans each call anew (428 instead of 142 us for a
-- lone append); a plan made while the table was empty would keep its sequential scan until the next
-- ANALYZE; and a plan that looks expensive would be compiled. Arrays of variable-length elements are
-- unnested once and never subscripted, which would walk them from the start each time. The frame says
-- ROWS because the default, RANGE, compares peers.
CREATE FUNCTION append_batch(
    a_stream text[], a_expected bigint[], a_count int[], a_wave int[], a_first_id uuid[],
    a_command uuid[], a_fingerprint bytea[],
    e_append int[], e_seq int[], e_stream text[], e_id uuid[], e_type text[], e_schema int[],
    e_payload bytea[], e_metadata bytea[])
RETURNS TABLE (append int, status int, stream_version bigint, log_position bigint)
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    base      bigint;       -- the last position handed out
    added     bigint;       -- how many positions this wave takes
    v_base    bigint[];     -- an append's place: the position before its first event, or -1
    v_version bigint[];     -- its stream's version before it
BEGIN
    PERFORM take_lane();
    SELECT coalesce(max(e.position), 0) INTO base FROM events e;

    FOR w IN 1 .. (SELECT max(x) FROM unnest(a_wave) x) LOOP
        SELECT array_agg(CASE WHEN z.ok THEN base + z.upto - z.cnt ELSE -1 END ORDER BY z.ord),
               array_agg(z.cur ORDER BY z.ord),
               coalesce(sum(z.cnt) FILTER (WHERE z.ok), 0)
          INTO v_base, v_version, added
          FROM (SELECT y.*, sum(CASE WHEN y.ok THEN y.cnt ELSE 0 END)
                              OVER (ORDER BY y.ord ROWS UNBOUNDED PRECEDING) AS upto
                  FROM (SELECT u.ord, u.cnt, h.cur,
                               u.wave = w
                               -- What was done before is not done again, whatever the stream's version.
                               -- (NOT EXISTS could be planned as a hash of the whole table.)
                               AND (SELECT c.id FROM commands c WHERE c.id = u.command) IS NULL
                               AND CASE u.expected WHEN -1 THEN true
                                                   WHEN -2 THEN h.cur > 0
                                                   ELSE h.cur = u.expected END AS ok
                          FROM unnest(a_stream, a_expected, a_count, a_wave, a_command)
                               WITH ORDINALITY u(stream, expected, cnt, wave, command, ord)
                         CROSS JOIN LATERAL (SELECT CASE WHEN u.wave = w THEN coalesce(
                                   (SELECT e.version FROM events e WHERE e.stream = u.stream
                                     ORDER BY e.version DESC LIMIT 1), 0) ELSE -1 END) h(cur)) y) z;

        IF added > 0 THEN
            INSERT INTO events (position, version, event_id, schema_version, stream, type, payload, metadata)
            SELECT v_base[e.append] + e.seq, v_version[e.append] + e.seq,
                   e.id, e.schema, e.stream, e.type, e.payload, e.metadata
              FROM unnest(e_append, e_seq, e_stream, e_id, e_type, e_schema, e_payload, e_metadata)
                   e(append, seq, stream, id, type, schema, payload, metadata)
             WHERE v_base[e.append] >= 0;

            INSERT INTO commands (id, stream, version, position, fingerprint)
            SELECT u.command, u.stream, v_version[u.ord] + u.cnt, v_base[u.ord] + u.cnt, u.fingerprint
              FROM unnest(a_command, a_stream, a_count, a_fingerprint)
                   WITH ORDINALITY u(command, stream, cnt, fingerprint, ord)
             WHERE u.command IS NOT NULL AND v_base[u.ord] >= 0;

            base := base + added;
        END IF;

        RETURN QUERY
        SELECT u.ord::int,
               CASE WHEN v_base[u.ord] >= 0 THEN 0
                    WHEN k.fingerprint IS NOT NULL THEN CASE WHEN k.fingerprint = u.fingerprint THEN 2 ELSE 3 END
                    WHEN d.position IS NOT NULL THEN 2
                    ELSE 1 END,
               CASE WHEN v_base[u.ord] >= 0 THEN v_version[u.ord] + u.cnt
                    WHEN k.fingerprint IS NOT NULL THEN k.version
                    WHEN d.position IS NOT NULL THEN u.expected + u.cnt
                    ELSE v_version[u.ord] END,
               CASE WHEN v_base[u.ord] >= 0 THEN v_base[u.ord] + u.cnt
                    WHEN k.fingerprint IS NOT NULL THEN k.position
                    ELSE d.position + u.cnt - 1 END
          FROM unnest(a_stream, a_expected, a_count, a_wave, a_first_id, a_command, a_fingerprint)
               WITH ORDINALITY u(stream, expected, cnt, wave, first_id, command, fingerprint, ord)
          -- (The conditions stand in the keys: a null key is not looked up, a false filter comes too late.)
          LEFT JOIN LATERAL (SELECT c.version, c.position, c.fingerprint FROM commands c
                              WHERE c.id = CASE WHEN v_base[u.ord] < 0 THEN u.command END) k ON true
          -- The append comes again when the event behind the version that it expects is its own first one.
          LEFT JOIN LATERAL (SELECT e.position FROM events e
                              WHERE e.stream = CASE WHEN v_base[u.ord] < 0 AND u.expected >= 0 THEN u.stream END
                                AND e.version = u.expected + 1 AND e.event_id = u.first_id) d ON true
         WHERE u.wave = w;
    END LOOP;
END
$$;
