-- binds: none
-- locks: none; inside an append the caller's write lock keeps the answer true
SELECT coalesce(max(position), 0) FROM events
