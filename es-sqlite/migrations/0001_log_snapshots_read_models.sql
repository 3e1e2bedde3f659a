-- The log. Positions are drawn inside BEGIN IMMEDIATE, whose lock only one connection of any
-- process holds, so they are dense and equal commit order.
CREATE TABLE events (
    position       INTEGER PRIMARY KEY,
    stream         TEXT    NOT NULL,
    version        INTEGER NOT NULL,
    event_id       BLOB    NOT NULL CHECK (length(event_id) = 16),
    name           TEXT    NOT NULL,
    schema_version INTEGER NOT NULL CHECK (schema_version > 0),
    payload        BLOB    NOT NULL, -- JSON text, kept as it was written
    metadata       BLOB,             -- JSON text
    recorded_at_us INTEGER NOT NULL, -- microseconds since 1970, by the clock of the host
    UNIQUE (stream, version)
) STRICT;

-- Whatever writes to the file keeps the log what it is. (The check on insert also stops
-- INSERT OR REPLACE, which deletes without asking the trigger for deletes.)
CREATE TRIGGER events_are_dense BEFORE INSERT ON events
WHEN NEW.position IS NOT 1 + coalesce((SELECT max(position) FROM events), 0)
  OR NEW.version IS NOT 1 + coalesce((SELECT max(version) FROM events WHERE stream = NEW.stream), 0)
BEGIN
    SELECT RAISE(ABORT, 'positions and versions are dense');
END;

CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'the log is append-only');
END;

CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events
BEGIN
    SELECT RAISE(ABORT, 'the log is append-only');
END;

-- By what queries and conditions find events. An index, no content: it is not read back with the event.
CREATE TABLE event_tags (
    tag      TEXT    NOT NULL COLLATE BINARY,
    position INTEGER NOT NULL,
    name     TEXT    NOT NULL, -- that of the event, so that a query by name need not look there
    PRIMARY KEY (tag, position)
) STRICT, WITHOUT ROWID;

-- Conditions rely on what is found, so it stays. (This one also stops INSERT OR REPLACE from changing the name.)
CREATE TRIGGER tags_are_on_events BEFORE INSERT ON event_tags
WHEN NEW.name IS NOT (SELECT name FROM events WHERE position = NEW.position)
BEGIN
    SELECT RAISE(ABORT, 'a tag is on an event and has its name');
END;

CREATE TRIGGER tags_are_not_changed BEFORE UPDATE ON event_tags
BEGIN
    SELECT RAISE(ABORT, 'the log is append-only');
END;

CREATE TRIGGER tags_are_not_deleted BEFORE DELETE ON event_tags
BEGIN
    SELECT RAISE(ABORT, 'the log is append-only');
END;

-- Remembered commands with their first outcome.
CREATE TABLE commands (
    id          BLOB    NOT NULL PRIMARY KEY,
    fingerprint BLOB    NOT NULL CHECK (length(fingerprint) = 32),
    version     INTEGER NOT NULL,
    position    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE snapshots (
    stream         TEXT    NOT NULL PRIMARY KEY,
    version        INTEGER NOT NULL,
    event_id       BLOB    NOT NULL,
    state_version  INTEGER NOT NULL,
    state          BLOB    NOT NULL,
    checksum       INTEGER NOT NULL,
    recorded_at_us INTEGER            -- of the event; null where the id alone tells
) STRICT;

-- AUTOINCREMENT: the id of a generation that is gone never comes back, so a worker of it can
-- never touch another one.
CREATE TABLE generations (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    projection TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('serving', 'building', 'retired')),
    definition TEXT,                       -- what it is folded by; null until its first worker has said so
    withdrawn  INTEGER NOT NULL DEFAULT 0  -- the newest version in whose place this one was promoted on purpose
) STRICT;

CREATE UNIQUE INDEX one_generation_serves ON generations (projection) WHERE state = 'serving';
CREATE UNIQUE INDEX one_generation_is_built ON generations (projection) WHERE state = 'building';

CREATE TABLE checkpoints (
    generation    INTEGER NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
    shard         TEXT    NOT NULL,
    position      INTEGER NOT NULL DEFAULT 0,
    event_id      BLOB,                       -- of the last event that was folded, like
    recorded_at_us INTEGER,                   -- its time
    cursor        TEXT,
    owner         BLOB,                       -- null: the lease is free
    token         INTEGER NOT NULL DEFAULT 0, -- the fencing token
    process       BLOB,                       -- of the owner: the name of the file that it keeps locked
    beats         INTEGER NOT NULL DEFAULT 0, -- grows while the owner lives
    ttl_ms        INTEGER NOT NULL DEFAULT 0, -- how long it may stand still before the lease is free
    PRIMARY KEY (generation, shard)
) STRICT, WITHOUT ROWID;

-- Which store this is: a part of the names of its readers' consumer groups.
CREATE TABLE store_id (
    singleton INTEGER NOT NULL PRIMARY KEY CHECK (singleton = 1),
    id        BLOB    NOT NULL CHECK (length(id) = 16)
) STRICT;
INSERT INTO store_id (singleton, id) VALUES (1, randomblob(16));

-- With rowids: without them documents stand in the index itself, which holds few of them on a page and compares keys beside
-- them. Of 1,000 bytes and more, loads take several times as long there.
CREATE TABLE documents (
    generation INTEGER NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
    key        TEXT    NOT NULL COLLATE BINARY,
    document   BLOB    NOT NULL,
    PRIMARY KEY (generation, key)
) STRICT;

-- The log for people and their tools.
CREATE VIEW event_log AS
SELECT position,
       lower(substr(hex(event_id), 1, 8) || '-' || substr(hex(event_id), 9, 4) || '-' || substr(hex(event_id), 13, 4)
             || '-' || substr(hex(event_id), 17, 4) || '-' || substr(hex(event_id), 21)) AS event_id,
       name AS event_type,
       substr(stream, 1, instr(stream, '-') - 1) AS aggregate_type,
       substr(stream, instr(stream, '-') + 1) AS aggregate_id,
       version,
       schema_version,
       CAST(payload AS TEXT) AS data,
       CAST(metadata AS TEXT) AS metadata,
       strftime('%Y-%m-%dT%H:%M:%S', recorded_at_us / 1000000, 'unixepoch')
           || printf('.%06dZ', recorded_at_us % 1000000) AS timestamp
FROM events;

-- What readers of read models see, for people and their tools.
CREATE VIEW read_models AS
SELECT generations.projection, generations.version, documents.key, CAST(documents.document AS TEXT) AS document
FROM generations
JOIN documents ON documents.generation = generations.id
WHERE generations.state = 'serving';
