-- Keys of which an event could not be handled. Only the worker that holds the shard adds and deletes rows; operators ask for a
-- retry. Rows of a retired reader are invisible and are deleted with it.
CREATE TABLE parked_keys (
    reader             INTEGER NOT NULL REFERENCES readers (id) ON DELETE CASCADE,
    key                TEXT    NOT NULL COLLATE BINARY,
    shard              TEXT    NOT NULL,
    is_retry_requested INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (reader, key)
) STRICT, WITHOUT ROWID;

-- The first event of a key that failed, and all later ones of the key.
CREATE TABLE dead_letters (
    reader         INTEGER NOT NULL,
    key            TEXT    NOT NULL COLLATE BINARY,
    position       INTEGER NOT NULL,
    stream         TEXT    NOT NULL, -- the event as the source delivered it, up to recorded_at_us
    version        INTEGER NOT NULL,
    event_id       BLOB    NOT NULL CHECK (length(event_id) = 16),
    name           TEXT    NOT NULL,
    schema_version INTEGER NOT NULL,
    payload        BLOB    NOT NULL,
    metadata       BLOB,
    recorded_at_us INTEGER NOT NULL,
    edited         BLOB,             -- the payload that an operator has put in place of the other
    cause          TEXT,             -- why it failed; null: it waits behind an earlier letter of its key
    attempts       INTEGER NOT NULL,
    parked_at_us   INTEGER NOT NULL, -- microseconds since 1970
    revision       INTEGER NOT NULL DEFAULT 1, -- grows with each change
    PRIMARY KEY (reader, key, position),
    FOREIGN KEY (reader, key) REFERENCES parked_keys (reader, key) ON DELETE CASCADE
) STRICT;

-- The last event at which a reader stopped, in each shard. It is there for as long as the checkpoint is before it.
CREATE TABLE stops (
    reader         INTEGER NOT NULL REFERENCES readers (id) ON DELETE CASCADE,
    shard          TEXT    NOT NULL,
    position       INTEGER NOT NULL,
    event_id       BLOB    NOT NULL,
    recorded_at_us INTEGER NOT NULL,
    cause          TEXT    NOT NULL,
    stopped_at_us  INTEGER NOT NULL,
    PRIMARY KEY (reader, shard)
) STRICT, WITHOUT ROWID;

-- What a reader does with an event otherwise than to handle it as the log has it, since an operator has decided so. The act that
-- decides writes it. Rows go with their reader.
CREATE TABLE amendments (
    reader   INTEGER NOT NULL REFERENCES readers (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    key      TEXT    NOT NULL COLLATE BINARY, -- whose dead letter was edited or discarded; '': all keys of the shard
    shard    TEXT    NOT NULL,                -- where the event was skipped; '' where a key is given
    payload  BLOB,                            -- what is handled instead; null: the event is left out
    PRIMARY KEY (reader, position, key, shard)
) STRICT, WITHOUT ROWID;

CREATE TABLE paused_readers (
    reader       TEXT    NOT NULL PRIMARY KEY,
    actor        TEXT    NOT NULL,
    reason       TEXT    NOT NULL,
    paused_at_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What operators did.
CREATE TABLE acts (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    acted_at_us INTEGER NOT NULL,
    actor       TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    what        TEXT    NOT NULL,
    reader      TEXT    NOT NULL,
    target      TEXT,             -- a key, or a shard
    position    INTEGER
) STRICT;

CREATE TRIGGER acts_are_not_changed BEFORE UPDATE ON acts
BEGIN
    SELECT RAISE(ABORT, 'the record of acts is append-only');
END;

CREATE TRIGGER acts_are_not_deleted BEFORE DELETE ON acts
BEGIN
    SELECT RAISE(ABORT, 'the record of acts is append-only');
END;
