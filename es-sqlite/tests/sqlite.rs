//! The promises of the SQLite backend: the suites that every backend passes, and the faults that only a file can have.

#![expect(clippy::doc_markdown, reason = "SQLite is a name, not code")]
#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod sqlite {
    mod fixture;

    mod batched;
    mod cancelled;
    mod closing;
    mod conformance;
    mod damaged;
    mod fields;
    mod full;
    mod killed;
    mod opening;
    mod optimistic;
    mod plans;
    mod promotion;
    mod refused;
    mod replaced;
    mod restarted;
    mod shared;
    mod tables;
    mod taken_over;
    mod view;
}
