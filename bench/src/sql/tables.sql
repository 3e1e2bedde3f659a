CREATE TABLE balances (id text PRIMARY KEY, balance bigint NOT NULL, changes bigint NOT NULL)
