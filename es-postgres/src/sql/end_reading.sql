-- Ends a transaction in which an application has read: what it has set ends with it, but not the locks that it has taken for the session.
-- Of the simple protocol. No binds. Locks: it releases all advisory locks of the session, of which the store keeps none here.
ROLLBACK;
SELECT pg_advisory_unlock_all();
