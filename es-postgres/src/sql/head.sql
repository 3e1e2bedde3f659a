-- The last position, 0 in an empty log. No binds, no locks.
SELECT coalesce((SELECT max(position) FROM events), 0) WHERE {here to read}
