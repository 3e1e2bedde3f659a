-- The schemas in which table projections have their tables: <name> for the generation that serves, <name>_g<generation> for each
-- other one. Each holds a table es_generation, which every reading keeps locked until it ends.
CREATE TABLE table_schemas (
    generation bigint NOT NULL REFERENCES readers ON DELETE CASCADE, -- also one that is retired
    name       text   COLLATE "C" NOT NULL,
    CONSTRAINT table_schemas_generation PRIMARY KEY (generation)
);

-- Makes the schema for the tables of a_generation, whose public name is a_name. own_name: the name of the schema; the caller makes
-- the tables in it, in the same transaction.
-- outcome: 'created'; 'there' when it is there; 'gone' when the generation was replaced or discarded; 'taken' when another schema
-- has the name.
-- Locks: the reader, which keeps promotion, discarding and other callers out.
CREATE FUNCTION create_table_schema(a_generation bigint, a_name text, OUT outcome text, OUT own_name text)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_state   text;
    v_version bigint;
BEGIN
    PERFORM 1 FROM readers r WHERE r.id = a_generation FOR NO KEY UPDATE;
    SELECT g.state, g.version INTO v_state, v_version FROM generations g WHERE g.id = a_generation;
    IF NOT FOUND THEN
        outcome := 'gone';
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM table_schemas t WHERE t.generation = a_generation) THEN
        outcome := 'there';
        RETURN;
    END IF;
    own_name := CASE v_state WHEN 'serving' THEN a_name ELSE a_name || '_g' || a_generation END;
    IF EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = own_name)
       OR (EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = a_name)
           AND NOT EXISTS (SELECT FROM table_schemas t JOIN generations g ON g.id = t.generation
                            WHERE t.name = a_name AND g.state = 'serving'))
    THEN
        outcome := 'taken';
        RETURN;
    END IF;
    EXECUTE format('CREATE SCHEMA %I', own_name);
    EXECUTE format('CREATE TABLE %I.es_generation (id bigint NOT NULL, version bigint NOT NULL)', own_name);
    EXECUTE format('INSERT INTO %I.es_generation VALUES ($1, $2)', own_name) USING a_generation, v_version;
    INSERT INTO table_schemas (generation, name) VALUES (a_generation, a_name);
    outcome := 'created';
END
$$;

-- Gives the public name to the tables of a_new, which begins to serve in the place of a_old. Statements find tables by name when
-- they begin, so each sees those of one generation, and none waits. For promote_generation().
CREATE FUNCTION swap_table_schemas(a_old bigint, a_new bigint) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_name text;
BEGIN
    SELECT t.name INTO v_name FROM table_schemas t WHERE t.generation = a_old;
    IF FOUND THEN
        EXECUTE format('ALTER SCHEMA %I RENAME TO %I', v_name, v_name || '_g' || a_old);
    END IF;
    SELECT t.name INTO v_name FROM table_schemas t WHERE t.generation = a_new;
    IF FOUND THEN
        EXECUTE format('ALTER SCHEMA %I RENAME TO %I', v_name || '_g' || a_new, v_name);
    END IF;
END
$$;

-- Drops the tables of a retired generation. It fails with "lock not available" while a reading of them goes on. For
-- sweep_generations().
-- Locks: es_generation first, and without waiting: a reading that has it may still ask for the other tables, and the two would wait
-- for each other. Then the tables, for which statements of people with psql are waited for.
CREATE FUNCTION drop_table_schema(a_generation bigint) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_name text;
BEGIN
    SELECT t.name || '_g' || a_generation INTO v_name FROM table_schemas t WHERE t.generation = a_generation;
    IF NOT FOUND OR to_regclass(format('%I.es_generation', v_name)) IS NULL THEN
        RETURN;
    END IF;
    EXECUTE format('LOCK TABLE %I.es_generation IN ACCESS EXCLUSIVE MODE NOWAIT', v_name);
    PERFORM set_config('lock_timeout', '1s', true);
    EXECUTE format('DROP SCHEMA %I CASCADE', v_name);
END
$$;
