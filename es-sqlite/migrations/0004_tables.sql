-- The generations whose table projections have made their tables. Each name of theirs in the file begins with `prefix`, and the
-- views on those of the generation that serves begin with `public_prefix`.
CREATE TABLE table_generations (
    generation    INTEGER PRIMARY KEY REFERENCES readers (id) ON DELETE CASCADE,
    prefix        TEXT NOT NULL,
    public_prefix TEXT NOT NULL
) STRICT;
