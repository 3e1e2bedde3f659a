-- The log. Positions are computed inside BEGIN IMMEDIATE. Only one connection of all processes holds its lock at a
-- time, so positions are dense and equal to commit order.
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

-- No program that writes to the file can change the log. (The trigger on insert also refuses INSERT OR REPLACE, whose
-- delete does not fire the trigger on delete.)
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

-- The index by which queries and conditions find events. It is not content: tags are not read back with the event.
CREATE TABLE event_tags (
    tag      TEXT    NOT NULL COLLATE BINARY,
    position INTEGER NOT NULL,
    name     TEXT    NOT NULL, -- the name of the event, so that a query by name does not read the table of events
    PRIMARY KEY (tag, position)
) STRICT, WITHOUT ROWID;

-- Conditions rely on tags, so tags are never changed either. (The trigger on insert also keeps INSERT OR REPLACE from
-- changing the name.)
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

-- Command ids that have been handled, with their first outcome.
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
    recorded_at_us INTEGER            -- the time of the event; null where its id alone identifies it
) STRICT;

-- What has checkpoints: policies, and the generations of read models. A retired one was a generation: no query sees it, and its
-- documents are deleted in the background, with the last of them its row.
--
-- AUTOINCREMENT: the id of a deleted reader is never used again, so a worker of that reader can never write to another one.
CREATE TABLE readers (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL,           -- of the policy or projection
    definition TEXT    NOT NULL,           -- of the code that created it; the first word is its kind
    is_retired INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX readers_by_name ON readers (name);

-- Copies of read models: readers with documents.
CREATE TABLE generations (
    id         INTEGER PRIMARY KEY REFERENCES readers (id) ON DELETE CASCADE,
    projection TEXT    NOT NULL,           -- the name of the reader
    version    INTEGER NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('serving', 'building')),
    withdrawn  INTEGER NOT NULL DEFAULT 0, -- the newest version that the promotion of this one withdrew on purpose
    UNIQUE (projection, state)
) STRICT;

CREATE TABLE checkpoints (
    reader        INTEGER NOT NULL REFERENCES readers (id) ON DELETE CASCADE,
    shard         TEXT    NOT NULL,
    position      INTEGER NOT NULL DEFAULT 0,
    event_id      BLOB,                       -- the last event that was folded
    recorded_at_us INTEGER,                   -- the time of that event
    cursor        TEXT,
    owner         BLOB,                       -- null: the lease is free
    fencing_token INTEGER NOT NULL DEFAULT 0, -- grows with every change of owner
    leased_at_us  INTEGER,                    -- since when this owner has it, by the clock of the host; for people
    process       BLOB,                       -- of the owner: the name of the presence file that it keeps locked
    beats         INTEGER NOT NULL DEFAULT 0, -- heartbeat: grows while the owner is alive
    ttl_ms        INTEGER NOT NULL DEFAULT 0, -- how long the heartbeat may pause before the lease is free
    acts          INTEGER NOT NULL DEFAULT 0, -- of operators: grows with each, so that the worker notices
    is_asked_for  INTEGER NOT NULL DEFAULT 0, -- another worker asks the owner to give it back
    PRIMARY KEY (reader, shard)
) STRICT, WITHOUT ROWID;

-- The identity of this store. It is a part of the names of its readers' consumer groups.
CREATE TABLE store_id (
    singleton INTEGER NOT NULL PRIMARY KEY CHECK (singleton = 1),
    id        BLOB    NOT NULL CHECK (length(id) = 16)
) STRICT;
INSERT INTO store_id (singleton, id) VALUES (1, randomblob(16));

-- A table with rowids: in a table WITHOUT ROWID the documents are stored in the B-tree of the keys, so a page holds few
-- keys, and with documents of 1,000 bytes or more a load takes several times as long.
CREATE TABLE documents (
    generation INTEGER NOT NULL REFERENCES readers (id) ON DELETE CASCADE, -- also one that is retired
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

-- The documents that the serving generations hold, for people and their tools.
CREATE VIEW read_models AS
SELECT generations.projection, generations.version, documents.key, CAST(documents.document AS TEXT) AS document
FROM generations
JOIN documents ON documents.generation = generations.id
WHERE generations.state = 'serving';
