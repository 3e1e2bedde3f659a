-- No binds: the rows follow in the protocol.
COPY documents (generation, key, document) FROM STDIN (FORMAT binary)
