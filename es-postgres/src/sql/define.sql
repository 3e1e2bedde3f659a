-- define
-- $1 generation, $2 definition, $3 fields. Locks: the generation; of two callers at once the first one's stays.
UPDATE generations SET definition = $2, fields = $3::text::jsonb WHERE {here} AND id = $1 AND definition IS NULL
