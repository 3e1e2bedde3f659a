-- The last position, 0 in an empty log. No binds, no locks.
SELECT coalesce(max(position), 0) FROM events
