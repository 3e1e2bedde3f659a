-- $1 schema: its oid, and the last position of its log, 0 if that is empty. No locks.
SELECT $1::regnamespace::oid::bigint, coalesce((SELECT max(position) FROM events), 0)
