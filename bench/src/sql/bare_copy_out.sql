-- No binds.
COPY (SELECT substr(stream, 9), payload FROM events ORDER BY position) TO STDOUT (FORMAT binary)
