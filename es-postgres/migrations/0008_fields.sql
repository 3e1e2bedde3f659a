-- What documents are found by beside their keys: a row for each field of which a document has a value. Projections without fields
-- have none. Values of all kinds are ordered as (number, text): a text has the number 0, the others have the empty text.
-- No foreign key: checkpoints fence writers.
CREATE TABLE document_fields (
    generation bigint  NOT NULL,
    field      text    COLLATE "C" NOT NULL,
    number     bigint  NOT NULL,        -- a whole number; 0 or 1 of a boolean; microseconds since 1970
    text       text    COLLATE "C" NOT NULL,
    key        text    COLLATE "C" NOT NULL,
    is_unique  boolean NOT NULL,
    CONSTRAINT document_fields_key PRIMARY KEY (generation, key, field)
);
-- The condition is always true, and only statements that look for values repeat it: no other can use this index. Without statistics
-- the planner takes it for as good a way to a document as the primary key, and reads the field of all documents for each.
CREATE INDEX document_fields_value ON document_fields (generation, field, number, text, key) WHERE key >= '';
CREATE UNIQUE INDEX document_fields_unique ON document_fields (generation, field, number, text) WHERE is_unique;

-- The first document but a_keys that has a value which one of these is to have, and that does not get another value itself: it is none
-- of a_changed_keys. A number is null where there is no value. Each value and each document is looked up: other ways, which look best
-- to a plan that was made for an empty table, compare each with all.
CREATE FUNCTION others_with_values(
    a_reader bigint, a_keys text[], a_fields text[], a_numbers bigint[], a_texts text[], a_changed_keys text[], a_changed_fields text[],
    OUT field text, OUT key text, OUT other text)
LANGUAGE sql STABLE AS $$
    SELECT n.field, n.key, f.key
      FROM unnest(a_keys, a_fields, a_numbers, a_texts) n(key, field, number, text)
     CROSS JOIN LATERAL (
           SELECT f.key FROM document_fields f
            WHERE f.generation = a_reader AND f.field = n.field AND f.number = n.number AND f.text = n.text AND f.key >= ''
              AND f.key <> n.key OFFSET 0) f
     WHERE (f.key, n.field) NOT IN (SELECT key, field FROM unnest(a_changed_keys, a_changed_fields) c(key, field))
     ORDER BY n.key, n.field
     LIMIT 1
$$;

-- A commit of documents with fields, and perhaps with dead letters: up to a_is_whole as for commit_letters(). The arrays after it are
-- all fields of all these documents; a number is null where there is no value. The claims are values that documents had between two
-- events of the commit: none that it does not change may have one of these.
-- outcome: as for commit_letters(); 'taken' when another document, a_other, has the value that a_key was to get; 'again' when that
-- was so for a moment only.
-- Values that change are deleted first, so that two documents can exchange theirs.
-- Locks: as commit_letters(); then the fields' rows, in the order of the values. It waits for other commits that write the same
-- value of a unique field.
CREATE FUNCTION commit_fields(
    a_reader bigint, a_shard text, a_fencing_token bigint, a_from bigint,
    a_position bigint, a_event_id uuid, a_recorded_at timestamptz, a_cursor text, a_ttl interval,
    a_keys text[], a_documents bytea[], a_deletes text[],
    a_letter_keys text[], a_positions bigint[], a_event_ids uuid[], a_streams text[], a_versions bigint[], a_types text[],
    a_schema_versions integer[], a_times timestamptz[], a_payloads bytea[], a_metadata bytea[], a_causes text[],
    a_attempts bigint[],
    a_key text, a_handled bigint[], a_revisions bigint[], a_failed bigint, a_cause text, a_is_whole boolean,
    a_field_keys text[], a_fields text[], a_unique boolean[], a_numbers bigint[], a_texts text[],
    a_claim_keys text[], a_claims text[], a_claim_numbers bigint[], a_claim_texts text[],
    OUT outcome text, OUT acts bigint, OUT taken_field text, OUT taken_key text, OUT taken_other text)
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
DECLARE
    v_constraint text;
BEGIN
    SELECT o.field, o.key, o.other INTO taken_field, taken_key, taken_other
      FROM others_with_values(a_reader, a_claim_keys, a_claims, a_claim_numbers, a_claim_texts, a_field_keys, a_fields) o;
    IF taken_key IS NOT NULL THEN
        outcome := 'taken';
        RETURN;
    END IF;
    BEGIN
        IF cardinality(a_letter_keys) = 0 AND a_key IS NULL THEN
            acts := commit_changes(a_reader, a_shard, a_fencing_token, a_from, a_position, a_event_id, a_recorded_at,
                                   a_cursor, a_ttl, a_keys, a_documents, a_deletes);
            outcome := CASE WHEN acts IS NULL THEN 'fenced' ELSE 'committed' END;
        ELSE
            SELECT c.outcome, c.acts INTO outcome, acts
              FROM commit_letters(a_reader, a_shard, a_fencing_token, a_from, a_position, a_event_id, a_recorded_at,
                                  a_cursor, a_ttl, a_keys, a_documents, a_deletes, a_letter_keys, a_positions, a_event_ids,
                                  a_streams, a_versions, a_types, a_schema_versions, a_times, a_payloads, a_metadata, a_causes,
                                  a_attempts, a_key, a_handled, a_revisions, a_failed, a_cause, a_is_whole) c;
        END IF;
        IF outcome <> 'committed' THEN RETURN; END IF;
        -- Each is looked up: see others_with_values().
        DELETE FROM document_fields d WHERE d.ctid = ANY (ARRAY(
            SELECT f.ctid
              FROM unnest(a_field_keys, a_fields, a_numbers, a_texts) n(key, field, number, text)
             CROSS JOIN LATERAL (
                   SELECT f.ctid, f.number, f.text FROM document_fields f
                    WHERE f.generation = a_reader AND f.key = n.key AND f.field = n.field OFFSET 0) f
             WHERE n.number IS NULL OR (n.number, n.text) <> (f.number, f.text)));
        INSERT INTO document_fields (generation, key, field, is_unique, number, text)
        SELECT a_reader, n.* FROM unnest(a_field_keys, a_fields, a_unique, a_numbers, a_texts) n(key, field, is_unique, number, text)
         WHERE n.number IS NOT NULL
         ORDER BY n.field, n.number, n.text
            ON CONFLICT (generation, key, field) DO NOTHING;
        RETURN;
    EXCEPTION WHEN unique_violation THEN
        GET STACKED DIAGNOSTICS v_constraint = CONSTRAINT_NAME;
        IF v_constraint <> 'document_fields_unique' THEN RAISE; END IF;
    END;
    -- Nothing of the block is left.
    acts := NULL;
    SELECT o.field, o.key, o.other INTO taken_field, taken_key, taken_other
      FROM others_with_values(
           a_reader, a_field_keys, a_fields,
           ARRAY(SELECT CASE WHEN is_unique THEN number END FROM unnest(a_unique, a_numbers) n(is_unique, number)), a_texts,
           a_field_keys, a_fields) o;
    outcome := CASE WHEN taken_key IS NULL THEN 'again' ELSE 'taken' END;
END
$$;

-- For people with psql: the statement that makes a view of each read model, with its fields as columns. The view shows what the
-- generation serves that serves when it is read, so a promotion changes no view. A role makes it where it may make views:
-- SELECT statement FROM read_model_views WHERE projection = 'orders' \gexec
CREATE VIEW read_model_views AS
SELECT g.projection,
       format('CREATE VIEW %I AS SELECT d.key, %s(d.document) AS document%s FROM %s g JOIN %s d ON d.generation = g.id%s '
              'WHERE g.projection = %L AND g.state = ''serving''',
              g.projection, 'json_for_people'::regproc, coalesce(f.columns, ''), 'generations'::regclass, 'documents'::regclass,
              coalesce(f.joins, ''), g.projection) AS statement
  FROM generations g
  LEFT JOIN LATERAL (
       SELECT string_agg(
                  format(CASE n.kind WHEN 'text' THEN ', %1$I.text AS %1$I'
                                     WHEN 'boolean' THEN ', %1$I.number <> 0 AS %1$I'
                                     WHEN 'timestamp' THEN ', timestamptz ''epoch'' + %1$I.number * interval ''1 microsecond'' AS %1$I'
                                     ELSE ', %1$I.number AS %1$I' END, n.name), '' ORDER BY n.name) AS columns,
              string_agg(
                  format(' LEFT JOIN %1$s %2$I ON %2$I.generation = g.id AND %2$I.key = d.key AND %2$I.key >= '''' AND %2$I.field = %2$L '
                         'AND %3$s',
                         'document_fields'::regclass, n.name,
                         format(CASE n.kind WHEN 'text' THEN '%I.number = 0' ELSE '%I.text = ''''' END, n.name)),
                  '' ORDER BY n.name) AS joins
         FROM jsonb_each_text(g.fields) n(name, kind)
       ) f ON true
 WHERE g.state = 'serving';
