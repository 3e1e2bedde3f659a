-- $1 generation, $2 the public name of its schema. Locks: see create_table_schema() in the migrations.
SELECT outcome, own_name FROM create_table_schema($1, $2) WHERE {here}
