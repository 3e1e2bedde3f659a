-- $1 accounts, $2 what is added to the balance of each, $3 how many changes that are.
INSERT INTO balances AS b (id, balance, changes) SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[])
    ON CONFLICT (id) DO UPDATE SET balance = b.balance + excluded.balance, changes = b.changes + excluded.changes
