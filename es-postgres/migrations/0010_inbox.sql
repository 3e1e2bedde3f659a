-- Messages of other systems that a reader has handled. One that its producer repeats is known by its id, in whichever shard it comes.
CREATE TABLE inbox (
    reader     bigint      NOT NULL REFERENCES readers ON DELETE CASCADE,
    message    uuid        NOT NULL,
    handled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT inbox_message PRIMARY KEY (reader, message)
);
CREATE INDEX inbox_age ON inbox (reader, handled_at);

-- A commit of a reader of messages: up to a_is_whole as for commit_letters(). a_messages were handled; what was handled before
-- a_keep_for is forgotten, at most a_most of it. known: how many of them were there already, since another worker has handled them.
-- Locks: as commit_letters(); then messages that are forgotten, without waiting, and those that were handled, in their order: two
-- workers may handle the same one at once.
CREATE FUNCTION commit_inbox(
    a_reader bigint, a_shard text, a_fencing_token bigint, a_from bigint,
    a_position bigint, a_event_id uuid, a_recorded_at timestamptz, a_cursor text, a_ttl interval,
    a_keys text[], a_documents bytea[], a_deletes text[],
    a_letter_keys text[], a_positions bigint[], a_event_ids uuid[], a_streams text[], a_versions bigint[], a_types text[],
    a_schema_versions integer[], a_times timestamptz[], a_payloads bytea[], a_metadata bytea[], a_causes text[],
    a_attempts bigint[],
    a_key text, a_handled bigint[], a_revisions bigint[], a_failed bigint, a_cause text, a_is_whole boolean,
    a_messages uuid[], a_keep_for interval, a_most bigint,
    OUT outcome text, OUT acts bigint, OUT known bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    added bigint;
BEGIN
    SELECT c.outcome, c.acts INTO outcome, acts
      FROM commit_letters(a_reader, a_shard, a_fencing_token, a_from, a_position, a_event_id, a_recorded_at,
                          a_cursor, a_ttl, a_keys, a_documents, a_deletes, a_letter_keys, a_positions, a_event_ids,
                          a_streams, a_versions, a_types, a_schema_versions, a_times, a_payloads, a_metadata, a_causes,
                          a_attempts, a_key, a_handled, a_revisions, a_failed, a_cause, a_is_whole) c;
    IF outcome <> 'committed' THEN RETURN; END IF;
    DELETE FROM inbox i WHERE i.ctid = ANY (ARRAY(
        SELECT o.ctid FROM inbox o
         WHERE o.reader = a_reader AND o.handled_at <= clock_timestamp() - a_keep_for
         ORDER BY o.handled_at LIMIT a_most FOR UPDATE SKIP LOCKED));
    INSERT INTO inbox (reader, message)
    SELECT a_reader, m.message FROM unnest(a_messages) m(message) ORDER BY m.message
        ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS added = ROW_COUNT;
    known := cardinality(a_messages) - added;
END
$$;
