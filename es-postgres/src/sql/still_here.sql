-- No binds, no locks. An import asks it before it commits what went in by COPY, which asks nothing.
SELECT true WHERE {here}
