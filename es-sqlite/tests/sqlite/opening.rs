//! Files that cannot be opened, and why.

use std::{
    error::Error,
    fs,
    task::{Context, Poll, Waker},
    time::Duration,
};

use es_core::{EventStore, Expected};
use es_sqlite::{OpenError, SqliteStore};
use sqlx::{Executor, Row};

use super::fixture::{append, dense_log, foreign_connection, new_path, put};

#[test]
fn without_a_runtime_a_store_is_not_opened() {
    let opening = std::pin::pin!(SqliteStore::open(new_path()));
    let opened = opening.poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(opened, Poll::Ready(Err(OpenError::NoRuntime))), "{opened:?}");
}

#[tokio::test]
async fn a_missing_directory_is_named() {
    let directory = new_path().with_file_name("missing");
    let error = SqliteStore::open(directory.join("events.db")).await.unwrap_err();
    assert!(matches!(&error, OpenError::NoDirectory { directory: named } if *named == directory), "{error:?}");
    assert!(!directory.exists());
}

#[tokio::test]
async fn a_file_of_another_kind_is_refused_and_not_changed() {
    let path = new_path();
    let text = "once upon a time ".repeat(100);
    fs::write(&path, &text).unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(error, OpenError::NotADatabase(_)), "{error:?}");
    assert!(error.source().is_some());
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_directory_is_refused() {
    let path = new_path();
    fs::create_dir(&path).unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(error, OpenError::File(_)), "{error:?}");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let path = new_path();
    SqliteStore::open(&path).await.unwrap().close().await.unwrap();
    let mut foreign = foreign_connection(&path).await;
    foreign
        .execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (9999, 'from the future', true, x'00', 0)",
        )
        .await
        .unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(error, OpenError::NewerSchema { found: 9999 }), "{error:?}");
}

#[tokio::test]
async fn tables_of_another_program_are_not_touched() {
    let path = new_path();
    let mut foreign = foreign_connection_to_new(&path).await;
    foreign.execute("CREATE TABLE events (mine TEXT); INSERT INTO events VALUES ('mine')").await.unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(error, OpenError::Schema(_)), "{error:?}");
    let tables = foreign.fetch_all("SELECT name FROM sqlite_schema").await.unwrap();
    assert_eq!(tables.iter().map(|row| row.get::<&str, _>(0)).collect::<Vec<_>>(), ["events"]);
}

async fn foreign_connection_to_new(path: &std::path::Path) -> sqlx::SqliteConnection {
    fs::write(path, "").unwrap();
    foreign_connection(path).await
}

#[tokio::test]
async fn a_locked_file_is_reported_in_bounded_time() {
    let path = new_path();
    let mut foreign = foreign_connection_to_new(&path).await;
    foreign.execute("BEGIN EXCLUSIVE").await.unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(error, OpenError::Locked(_)), "{error:?}");
    foreign.execute("COMMIT").await.unwrap();
    SqliteStore::open(&path).await.expect("it is free again");
}

#[tokio::test]
async fn names_with_a_meaning_for_sqlite_are_ordinary_files() {
    for name in [":memory:", "file:x?mode=memory", "with space & ä.db"] {
        let path = new_path().with_file_name(name);
        let store = SqliteStore::open(&path).await.unwrap();
        put(&store, append("a", Expected::NoStream, 1)).await;
        assert!(path.is_file(), "{name}");
    }
}

/// An operator who mistypes a path must not get an empty store, and looking must not migrate a file away from older programs.
#[tokio::test]
async fn an_existing_file_is_opened_as_it_is() {
    let path = new_path();
    let error = SqliteStore::options(&path).migrate(false).open().await.unwrap_err();
    assert!(matches!(&error, OpenError::NoFile { file } if *file == path), "{error:?}");
    assert!(!path.exists());

    fs::write(&path, "").unwrap();
    let mut foreign = foreign_connection(&path).await;
    foreign.execute("CREATE TABLE notes (note TEXT)").await.unwrap();
    let error = SqliteStore::options(&path).migrate(false).open().await.unwrap_err();
    assert!(matches!(&error, OpenError::NotMigrated { missing } if missing[0] == 1), "{error:?}");
    let tables = foreign.fetch_all("SELECT name FROM sqlite_schema").await.unwrap();
    assert_eq!(tables.len(), 1, "nothing was created");

    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    put(&store, append("a", Expected::NoStream, 1)).await;
    let other = SqliteStore::options(&path).migrate(false).open().await.unwrap();
    assert_eq!(other.head().await.unwrap().get(), 1);
    other.close().await.unwrap();
    store.close().await.unwrap();
    let mut foreign = foreign_connection(&path).await;
    foreign.execute("UPDATE _sqlx_migrations SET checksum = x'00'").await.unwrap();
    let error = SqliteStore::options(&path).migrate(false).open().await.unwrap_err();
    assert!(matches!(error, OpenError::Schema(_)), "{error:?}");
}

/// Added to the present time, `patience` would end the writer.
#[tokio::test]
async fn limits_may_be_without_an_end() {
    let limits = SqliteStore::options(new_path()).patience(Duration::MAX).close_within(Duration::MAX);
    let limits = limits.queue_appends(usize::MAX).queue_bytes(usize::MAX).reader_connections(usize::MAX);
    let store = limits.batch_appends(usize::MAX).batch_bytes(usize::MAX).open().await.unwrap();
    put(&store, append("a", Expected::NoStream, 1)).await;
    assert_eq!(dense_log(&store).await.len(), 1);
    store.close().await.unwrap();
}
