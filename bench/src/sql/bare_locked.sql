-- The INSERT of bare_batch.sql under an advisory lock: what two writers need at least so that positions are committed
-- in their order.
CREATE FUNCTION append_locked(
    e_version bigint[], e_id uuid[], e_schema int[], e_stream text[], e_type text[], e_payload bytea[], e_metadata bytea[])
RETURNS TABLE (event_id uuid, "position" bigint)
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
BEGIN
    PERFORM pg_advisory_xact_lock(25972, 1);
    RETURN QUERY
    INSERT INTO events AS e (version, event_id, schema_version, stream, type, payload, metadata)
    SELECT * FROM unnest(e_version, e_id, e_schema, e_stream, e_type, e_payload, e_metadata)
        ON CONFLICT (stream, version) DO NOTHING
    RETURNING e.event_id, e.position;
END
$$;
