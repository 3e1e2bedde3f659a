-- Messages of other systems that a reader has handled. One that its producer repeats is known by its id, in whichever shard it comes.
CREATE TABLE inbox (
    reader        INTEGER NOT NULL REFERENCES readers (id) ON DELETE CASCADE,
    message       BLOB    NOT NULL CHECK (length(message) = 16),
    handled_at_us INTEGER NOT NULL, -- microseconds since 1970
    PRIMARY KEY (reader, message)
) STRICT, WITHOUT ROWID;

CREATE INDEX inbox_by_age ON inbox (reader, handled_at_us);
