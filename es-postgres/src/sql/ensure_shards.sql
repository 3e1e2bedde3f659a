-- $1 reader, $2 the source of each shard, $3 shards. Locks: see ensure_shards() in the migrations.
SELECT ensure_shards($1, $2, $3) WHERE {here}
