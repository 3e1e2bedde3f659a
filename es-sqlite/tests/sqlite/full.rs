//! A disk that is full for a while.

use std::{
    env, fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use es_core::{AppendError, EventStore, Expected, NewEvent};
use es_sqlite::SqliteStore;

use super::fixture::{append, dense_log, put};

/// Tells the child where the small disk is.
const DISK: &str = "ES_SQLITE_SMALL_DISK";

/// The child process of the test below. Without the variable that names the disk it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_to_a_full_disk() {
    let Ok(disk) = env::var(DISK) else { return };
    let disk = Path::new(&disk);
    let store = SqliteStore::open(disk.join("events.db")).await.unwrap();
    put(&store, append("a", Expected::NoStream, 1)).await;

    let filler = fill(disk);
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.append(large("a")).await }
    });
    let early = tokio::time::timeout(Duration::from_secs(1), store.append(append("b", Expected::NoStream, 1))).await;
    assert!(early.is_err() && !waiting.is_finished(), "{early:?}");
    fs::remove_file(filler).unwrap();
    waiting.await.unwrap().expect("there is room again");
    // The caller of the second append was dropped; the writer wrote the append nevertheless.
    put(&store, append("a", Expected::Any, 1)).await;
    assert_eq!(dense_log(&store).await.len(), 4);

    let filler = fill(disk);
    let outcome = store.append(large("a")).await;
    assert!(matches!(outcome, Err(AppendError::Store(_))), "{outcome:?}");
    fs::remove_file(filler).unwrap();
    put(&store, append("a", Expected::Any, 1)).await;
    store.close().await.unwrap();
    std::io::stdout().write_all(b"it has waited\n").unwrap();
}

fn large(id: &str) -> es_core::Append {
    let mut append = append(id, Expected::Any, 1);
    let mut data = append.events.remove(0).data;
    data.payload = format!("\"{}\"", "x".repeat(900_000)).into();
    append.events.push(NewEvent::new(data));
    append
}

/// Fills `disk` with a file.
fn fill(disk: &Path) -> std::path::PathBuf {
    let filler = disk.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    filler
}

/// A command in a mount namespace of its own: what it mounts is gone when it ends.
fn unshared(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script]);
    command
}

/// As on Postgres: callers wait for a limited time, and then get an error. (Seen to fail where a batch is tried three
/// times without a pause.)
#[tokio::test]
async fn r5_r17_appends_wait_while_the_disk_is_full() {
    let disk = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=6m tmpfs \"$0\"";
    if !unshared(mount).arg(disk.path()).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        eprintln!("not tested: this user cannot mount a disk in a namespace");
        return;
    }
    let child = unshared(&format!("{mount} && exec \"$@\""))
        .arg(disk.path())
        .arg(env::current_exe().unwrap())
        .args(["--exact", "sqlite::full::appends_to_a_full_disk", "--nocapture"])
        .env(DISK, disk.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(said.contains("it has waited"), "{said}\n{}", String::from_utf8_lossy(&child.stderr));
}
