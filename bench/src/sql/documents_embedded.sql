-- As documents.sql, on SQLite.
SELECT count(*), coalesce(sum(CAST(document AS TEXT) ->> 'changes'), 0) FROM documents
