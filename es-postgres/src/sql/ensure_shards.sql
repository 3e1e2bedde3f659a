-- $1 generation, $2 shards. Locks: see ensure_shards() in the migrations.
SELECT ensure_shards($1, $2) WHERE {here}
