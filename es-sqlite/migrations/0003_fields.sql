-- The fields of a generation's documents: the kind of each by its name. They are recorded with the definition.
ALTER TABLE generations ADD COLUMN fields TEXT NOT NULL DEFAULT '{}';

-- What documents are found by beside their keys: a row for each field of which a document has a value. Projections without fields
-- have none. Values of all kinds are ordered as (number, text): a text has the number 0, the others have the empty text.
CREATE TABLE document_fields (
    generation INTEGER NOT NULL,
    key        TEXT    NOT NULL COLLATE BINARY,
    field      TEXT    NOT NULL,
    number     INTEGER NOT NULL, -- a whole number; 0 or 1 of a boolean; microseconds since 1970
    text       TEXT    NOT NULL COLLATE BINARY,
    is_unique  INTEGER NOT NULL,
    PRIMARY KEY (generation, key, field)
) STRICT, WITHOUT ROWID;
CREATE INDEX document_fields_by_value ON document_fields (generation, field, number, text, key);
CREATE UNIQUE INDEX document_fields_are_unique ON document_fields (generation, field, number, text) WHERE is_unique;

-- For people: the statement that makes a view of each read model, with its fields as columns. The view shows what the generation
-- holds that serves when it is read, so a promotion changes no view. (TEMP: the schema of the file is the store's.)
CREATE VIEW read_model_views AS
SELECT generations.projection,
       'CREATE TEMP VIEW "' || generations.projection || '" AS SELECT d.key, CAST(d.document AS TEXT) AS document'
           || coalesce((
               SELECT group_concat(', ' || CASE field.value
                   WHEN 'text' THEN '"' || field.key || '".text'
                   WHEN 'timestamp' THEN 'strftime(''%Y-%m-%dT%H:%M:%S'', ("' || field.key || '".number - ("' || field.key
                       || '".number % 1000000 + 1000000) % 1000000) / 1000000, ''unixepoch'') || printf(''.%06dZ'', ("'
                       || field.key || '".number % 1000000 + 1000000) % 1000000)'
                   ELSE '"' || field.key || '".number' END || ' AS "' || field.key || '"', '')
               FROM json_each(generations.fields) AS field), '')
           || ' FROM generations g JOIN documents d ON d.generation = g.id'
           || coalesce((
               SELECT group_concat(' LEFT JOIN document_fields "' || field.key || '" ON "' || field.key
                   || '".generation = g.id AND "' || field.key || '".key = d.key AND "' || field.key || '".field = '''
                   || field.key || ''' AND "' || field.key
                   || CASE field.value WHEN 'text' THEN '".number = 0' ELSE '".text = ''''' END, '')
               FROM json_each(generations.fields) AS field), '')
           || ' WHERE g.projection = ''' || generations.projection || ''' AND g.state = ''serving''' AS statement
FROM generations
WHERE generations.state = 'serving';
