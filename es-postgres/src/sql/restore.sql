-- Takes back what statements of an application have left in a session, before session.sql. Of the simple protocol, as that one.
-- No binds. Locks: it releases all advisory locks of the session, of which the store keeps none here.
SET SESSION AUTHORIZATION DEFAULT;
RESET ALL;
CLOSE ALL;
UNLISTEN *;
DISCARD TEMP;
SELECT pg_advisory_unlock_all();
