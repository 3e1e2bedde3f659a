SELECT position, stream, payload FROM events ORDER BY position
