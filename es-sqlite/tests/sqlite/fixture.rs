//! The files and events that the tests use.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

use es_core::{
    Append, AppendError, Appended, EventData, EventStore, Expected, NewEvent, Position, RecordedEvent, StreamId, Tag,
};
use es_sqlite::SqliteStore;
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

/// Makes the database refuse every event with the name `test.bad`.
pub(crate) const REFUSE_BAD: &str = "CREATE TRIGGER refuse_bad BEFORE INSERT ON events WHEN NEW.name = 'test.bad' \
     BEGIN SELECT RAISE(ABORT, 'bad'); END";

thread_local! {
    /// Every test has a thread of its own; its directories go when it ends.
    static DIRECTORIES: RefCell<Vec<TempDir>> = const { RefCell::new(Vec::new()) };
}

/// The path of a file that does not exist yet, in a directory of its own.
pub(crate) fn new_path() -> PathBuf {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    DIRECTORIES.with_borrow_mut(|directories| directories.push(directory));
    path
}

/// A store in a new file.
pub(crate) async fn new_store() -> SqliteStore {
    SqliteStore::open(new_path()).await.unwrap()
}

/// A connection of another program to the store's file.
pub(crate) async fn foreign_connection(path: &Path) -> SqliteConnection {
    SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await.unwrap()
}

pub(crate) fn tag(text: &str) -> Tag {
    Tag::new(text).unwrap()
}

pub(crate) fn stream(id: &str) -> StreamId {
    StreamId::new("test", id).unwrap()
}

pub(crate) fn event(name: &str) -> NewEvent {
    let data = EventData { name: name.into(), schema_version: 1, payload: "{}".into() };
    NewEvent::new(data)
}

pub(crate) fn append(id: &str, expected: Expected, events: usize) -> Append {
    Append::new(stream(id), expected, (0..events).map(|_| event("test.happened")).collect())
}

/// The outcome of appends that are made together.
pub(crate) type Outcome = Result<Vec<Appended>, AppendError>;

/// The outcomes of `entries`; the appends of one entry are made together. On a runtime with one thread all entries are
/// queued before the writer runs, so they are one batch.
pub(crate) async fn in_one_batch(store: &SqliteStore, entries: impl IntoIterator<Item = Vec<Append>>) -> Vec<Outcome> {
    let entries = entries.into_iter().map(|appends| store.append_together(appends));
    tokio::task::unconstrained(futures_util::future::join_all(entries)).await
}

/// The positions that were written, or the error.
pub(crate) fn described(outcomes: &[Outcome]) -> Vec<String> {
    let described = |outcome: &Outcome| match outcome {
        Ok(appended) => format!("{:?}", appended.iter().map(|appended| appended.position.get()).collect::<Vec<_>>()),
        Err(error) => error.to_string(),
    };
    outcomes.iter().map(described).collect()
}

pub(crate) async fn put(store: &SqliteStore, append: Append) -> Appended {
    store.append(append).await.unwrap()
}

/// The whole log, after a check that positions and versions are dense (R3).
pub(crate) async fn dense_log(store: &SqliteStore) -> Vec<RecordedEvent> {
    let log = store.read_log(Position::ZERO, usize::MAX).await.unwrap();
    let mut versions = std::collections::HashMap::<_, u64>::new();
    for (event, position) in log.iter().zip(1..) {
        let version = versions.entry(&event.stream).or_default();
        *version += 1;
        assert_eq!((event.position.get(), event.version.get()), (position, *version));
    }
    log
}
