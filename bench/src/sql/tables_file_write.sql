-- ?1 [[account, what is added to its balance, how many changes that are], …]. (WHERE true: otherwise ON would begin a join.)
INSERT INTO {balances} AS b (id, balance, changes) SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1) WHERE true
    ON CONFLICT (id) DO UPDATE SET balance = b.balance + excluded.balance, changes = b.changes + excluded.changes
