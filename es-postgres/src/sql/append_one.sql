-- The position of the only event of an append that names a version, or null; see append_one() in the
-- migrations. $1 stream, $2 expected version, $3 last event or null, $4-$8 the event. Locks: the lane.
SELECT append_one($1, $2, $3, $4, $5, $6, $7, $8)
