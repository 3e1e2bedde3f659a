-- $1 how many events there are to be, $2 the payload. Ten events a stream; dense positions and versions, as appends
-- would have written them.
INSERT INTO events (position, version, event_id, schema_version, stream, type, payload)
SELECT n, (n - 1) % 10 + 1, gen_random_uuid(), 1,
       'account-00000000-0000-7000-8000-' || lpad(to_hex((n - 1) / 10), 12, '0'), 'account.deposited', $2
  FROM generate_series(1, $1::bigint) n
