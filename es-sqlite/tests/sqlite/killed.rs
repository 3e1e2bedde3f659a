//! A process that is killed while it writes.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use es_core::{EventStore, Expected, Position};
use es_sqlite::SqliteStore;

use super::fixture::{append, dense_log, new_path, put};

/// Tells the child which file to write to.
const FILE: &str = "ES_SQLITE_KILLED_FILE";

/// The child: it appends from eight tasks at once and prints every position that was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is the child process of r5_a_killed_process_loses_nothing_acknowledged and never ends by itself"]
async fn appends_until_it_is_killed() {
    let Ok(file) = env::var(FILE) else { return };
    let store = SqliteStore::open(file).await.unwrap();
    let writers = (0..8).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            loop {
                let appended = put(&store, append(&format!("w{writer}"), Expected::Any, 3)).await;
                // One write call per line, not captured by the test harness, so a kill cannot cut a line in two.
                let line = format!("acknowledged {}\n", appended.position);
                std::io::stdout().write_all(line.as_bytes()).unwrap();
            }
        })
    });
    futures_util::future::join_all(writers).await;
}

/// Starts the child, kills it (SIGKILL) after some acknowledgements, and returns the highest acknowledged position.
fn write_and_kill(file: &Path) -> u64 {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "sqlite::killed::appends_until_it_is_killed", "--ignored", "--nocapture"])
        .env(FILE, file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        // Other lines come from the test harness.
        if let Some((_, position)) = line.unwrap().split_once("acknowledged ") {
            acknowledged.push(position.parse::<u64>().unwrap());
        }
        // Lines printed before the kill took effect are acknowledgements too, so all output is read.
        if acknowledged.len() == 60 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    acknowledged.into_iter().max().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_a_killed_process_loses_nothing_acknowledged() {
    let path = new_path();
    for _ in 0..4 {
        let file = path.clone();
        let acknowledged = tokio::task::spawn_blocking(move || write_and_kill(&file)).await.unwrap();
        let store = SqliteStore::open(&path).await.unwrap();
        let head = store.head().await.unwrap();
        assert!(head >= Position::new(acknowledged), "{acknowledged} was acknowledged, the log ends at {head}");
        // Appends are whole (R1) and dense (R3), and the next process continues after them.
        assert_eq!(dense_log(&store).await.len() % 3, 0);
        assert_eq!(put(&store, append("between", Expected::Any, 3)).await.position.get(), head.get() + 3);
        store.close().await.unwrap();
    }
}
