-- The triggers that keep the log as it is.
-- binds: none
-- locks: none
SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name IN ('events', 'event_tags')
