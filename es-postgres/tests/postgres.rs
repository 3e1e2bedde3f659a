//! The store against a real server: `DATABASE_URL` names it, and every test has a schema of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here and now")]

mod postgres {
    mod own_server;
    mod process;
    mod server;

    mod suites;

    mod appends;
    mod commands;
    mod connects;
    mod exhaustion;
    mod failover;
    mod faults;
    mod fields;
    mod imports;
    mod inline;
    mod append_lock;
    mod large;
    mod locale;
    mod locks;
    mod long_pages;
    mod matching;
    mod plans;
    mod pooler;
    mod races;
    mod read_models;
    mod renamed;
    mod roles;
    mod settings;
    mod shutdown;
    mod snapshots;
    mod tables;
    mod taken_over;
    mod tls;
    mod views;
}
