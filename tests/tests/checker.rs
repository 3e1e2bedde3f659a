//! The checker, briefly, on every store, and faults that it must find. `cargo xtask check` runs it for a given time.
//!
//! A crash of the server disturbs every test that runs at the same time, so the tests on Postgres take turns.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

use std::path::Path;

use es_testing::checker::{Promise, Size};
use tests::checker::{Ground, Report, Trial};
use tokio::sync::{Mutex, MutexGuard};

/// The program that takes part in runs.
const PROGRAM: &str = env!("CARGO_BIN_EXE_check");

/// Where histories with findings are kept.
const DIRECTORY: &str = env!("CARGO_TARGET_TMPDIR");

async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// A seed that was never tried: the last bits of such an id are random.
fn seed() -> u64 {
    uuid::Uuid::now_v7().as_u64_pair().1 & 0xffff_ffff
}

fn assert_kept(report: &Report) {
    println!("{report}");
    assert!(report.findings.is_empty(), "{} (history: {})", report.findings[0], report.history.display());
    assert!(
        report.count("appended") > 100 && report.count("conflicts") > 100,
        "there was something to check: {report}"
    );
    assert!(
        report.count("appended together") > 5 && report.count("conditions failed") > 5,
        "there were groups and conditions to check: {report}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_promise_is_kept_on_postgres_while_servers_and_processes_are_killed() {
    let _turn = turn().await;
    for _ in 0..3 {
        let ground = Ground::postgres();
        let crash_server = ground.may_crash();
        let size = Size { processes: 3, faults: 4, cut_sessions: true, crash_server, ..Size::default() };
        let trial = Trial::prepare(seed(), &size, ground, 2, Path::new(DIRECTORY)).await;
        assert_kept(&trial.run(Path::new(PROGRAM)).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_promise_is_kept_on_sqlite_while_processes_are_killed() {
    let files = tempfile::tempdir().unwrap();
    let ground = Ground::Sqlite(files.path().join("events.db"));
    let size = Size { processes: 3, faults: 3, ..Size::default() };
    let trial = Trial::prepare(seed(), &size, ground, 2, Path::new(DIRECTORY)).await;
    assert_kept(&trial.run(Path::new(PROGRAM)).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_promise_is_kept_in_memory() {
    let trial = Trial::prepare(seed(), &Size::default(), Ground::Memory, 2, Path::new(DIRECTORY)).await;
    assert_kept(&trial.run(Path::new(PROGRAM)).await.unwrap());
}

/// Plants a fault into fresh schemas, one seed after the other, until the checker finds that `promise` is broken.
async fn assert_found(fault: &str, size: &Size, promise: Promise) {
    const SEEDS: u64 = 10;
    let _turn = turn().await;
    for seed in 1..=SEEDS {
        // Four stores, as four processes have them. (Those connect before the fault is there: they would notice.)
        let trial = Trial::prepare(seed, size, Ground::postgres(), 4, Path::new(DIRECTORY)).await;
        trial.ground().run(fault).await;
        let report = trial.run(Path::new(PROGRAM)).await.unwrap();
        println!("{report}");
        if let Some(finding) = report.findings.iter().find(|finding| finding.promise == promise) {
            println!("{finding}");
            return;
        }
    }
    panic!("{SEEDS} seeds have not shown that {promise} is broken");
}

fn brief() -> Size {
    Size { clients: 8, operations: 60, ..Size::default() }
}

/// Replaces a piece of a function.
fn with_other(function: &str, piece: &str, replacement: &str) -> String {
    format!(
        "DO $plant$
         DECLARE
             v_sound   text := pg_get_functiondef('{function}'::regproc);
             v_planted text := replace(v_sound, $piece${piece}$piece$, $piece${replacement}$piece$);
         BEGIN
             IF v_planted = v_sound THEN RAISE EXCEPTION '{function}() has changed: plant the fault elsewhere'; END IF;
             EXECUTE v_planted;
         END $plant$"
    )
}

/// The append lock alone is not enough of a fault: without it the primary key refuses every position that is drawn twice, and
/// the batch is sent again; nothing was found then, and nothing was broken. So the second line of defence goes too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_a_log_without_its_append_lock_is_found() {
    let fault = "CREATE OR REPLACE FUNCTION take_append_lock() RETURNS boolean LANGUAGE sql AS 'SELECT true';
                 ALTER TABLE events DROP CONSTRAINT events_position; CREATE INDEX ON events (position)";
    assert_found(fault, &brief(), Promise::R3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r2_an_append_without_compare_and_set_is_found() {
    let fault = with_other("append_batch", "ELSE coalesce(h.version, 0) = u.expected END", "ELSE true END");
    assert_found(&fault, &brief(), Promise::R2).await;
}

/// A session that has itself written what an append expects leaves the rest to this index.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r2_versions_that_are_not_unique_are_found() {
    let fault = "ALTER TABLE events DROP CONSTRAINT events_version; CREATE INDEX ON events (stream, version)";
    assert_found(fault, &brief(), Promise::R2).await;
}

/// An append that expects a certain last event is written after another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r2_an_append_after_another_event_than_it_names_is_found() {
    let all = with_other("append_all", "OR h.event_id <> u.last", "");
    let batch = with_other("append_batch", "u.last IS NULL", "true");
    assert_found(&format!("{all}; {batch}"), &brief(), Promise::R2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r2_a_condition_that_is_ignored_is_found() {
    let fault = with_other("append_batch", "IF cardinality(q_append) > 0 THEN", "IF false THEN");
    assert_found(&fault, &brief(), Promise::R2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1_appends_of_a_group_that_are_written_apart_are_found() {
    let fault = with_other("append_batch", "IF cardinality(a_group) > 0 THEN", "IF false THEN");
    assert_found(&fault, &brief(), Promise::R1).await;
}

/// The server answers before the commit is in its write-ahead log, and is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_an_acknowledgement_before_the_commit_is_found() {
    if !Ground::postgres().may_crash() {
        eprintln!("left out: the server at DATABASE_URL may have other users");
        return;
    }
    let held = "IS NOT NULL";
    let answered = format!("{held} AND set_config('synchronous_commit', 'off', true) = 'off'");
    let fault = with_other("take_append_lock", held, &answered);
    let size = Size { crash_server: true, faults: 3, ..brief() };
    assert_found(&fault, &size, Promise::R5).await;
}
