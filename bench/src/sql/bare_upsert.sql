-- $1 keys, $2 documents.
INSERT INTO documents AS d (generation, key, document) SELECT 1, u.key, u.document FROM unnest($1::text[], $2::bytea[]) u(key, document)
    ON CONFLICT (generation, key) DO UPDATE SET document = excluded.document
