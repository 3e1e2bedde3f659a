//! A rebuild that is killed, in small.

use std::{env, path::PathBuf, time::Duration};

use tests::proof::Proof;

/// R12: a real process, a real `kill -9` while it folds, writers beside it. It is killed where it has written and has folded more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r12_a_rebuild_that_is_killed_continues_and_ends_equal_to_an_independent_fold() {
    let proof = Proof {
        program: PathBuf::from(env!("CARGO_BIN_EXE_prove-rebuild")),
        database: env::var("DATABASE_URL").expect("DATABASE_URL is not set: run `cargo xtask test`"),
        events: 6_000,
        accounts: 500,
        rate: 50,
        quiet: Duration::from_millis(200),
        kills: 1,
        // Appends are always slower.
        append_p99: Some(Duration::from_nanos(1)),
        // It writes after each 500 events.
        document_bytes: Some(10_000),
        waits: true,
        measures: false,
    };
    let report = proof.run().await.expect("the server is up");
    assert!(report.is_proved(), "{report}");
    let killed = report.survived[0];
    assert!(killed.is_resumed() && killed.written < 3_000, "{report}");
    assert!(report.documents == 500 && report.throttled.is_some(), "{report}");
}
