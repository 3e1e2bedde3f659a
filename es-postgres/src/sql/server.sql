-- What the server is. No binds, no locks.
SELECT current_setting('server_version_num')::int, current_setting('server_encoding')
