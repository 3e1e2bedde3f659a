//! What a store is told before it opens its file.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::sync::Semaphore;

/// How to open a file, and the limits of queues and connections. `PostgresOptions` has the same ones under the same names, with
/// defaults of its own, and two more: a schema, which a file cannot have beside another one, and a limit for each answer of a
/// server, since a file cannot vanish without an error.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    pub(crate) path: PathBuf,
    pub(crate) migrate: bool,
    pub(crate) queue_appends: usize,
    pub(crate) queue_bytes: usize,
    pub(crate) batch_appends: usize,
    pub(crate) batch_bytes: usize,
    pub(crate) reader_connections: usize,
    pub(crate) patience: Duration,
    pub(crate) close_within: Duration,
}

impl SqliteOptions {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            migrate: true,
            queue_appends: 1_024,
            queue_bytes: 64 * 1024 * 1024,
            batch_appends: 512,
            batch_bytes: 8 * 1024 * 1024,
            reader_connections: 4,
            patience: Duration::from_secs(10),
            close_within: Duration::from_secs(10),
        }
    }

    /// Whether the file is created where it is missing, and its schema brought up to date (by default both are done). If not, a file
    /// that is missing is refused with [`OpenError::NoFile`](crate::OpenError::NoFile) and a schema that is older than this program with
    /// [`OpenError::NotMigrated`](crate::OpenError::NotMigrated), and opening writes nothing: so operators look into a store and
    /// change nothing.
    pub fn migrate(self, migrate: bool) -> Self {
        Self { migrate, ..self }
    }

    /// How many appends may wait for the writer; further callers wait before they queue (R17). Default: 1,024.
    pub fn queue_appends(self, appends: usize) -> Self {
        Self { queue_appends: appends.clamp(1, Semaphore::MAX_PERMITS), ..self }
    }

    /// How many bytes of events may wait for the writer; further callers wait before they queue (R17). Appends of more than 1 MiB
    /// have as much room again for themselves, so that the others do not wait for theirs. Default: 64 MiB.
    pub fn queue_bytes(self, bytes: usize) -> Self {
        Self { queue_bytes: bytes.max(1), ..self }
    }

    /// The most appends of one transaction. Default: 512.
    pub fn batch_appends(self, appends: usize) -> Self {
        Self { batch_appends: appends.max(1), ..self }
    }

    /// A transaction that has this many bytes takes no further append. Default: 8 MiB.
    pub fn batch_bytes(self, bytes: usize) -> Self {
        Self { batch_bytes: bytes.max(1), ..self }
    }

    /// The most queries that run at once, beside the writer. Each has a connection and a thread. Default: 4.
    pub fn reader_connections(self, connections: usize) -> Self {
        Self { reader_connections: connections.clamp(1, Semaphore::MAX_PERMITS), ..self }
    }

    /// How long an append is tried again while the disk is full or another process holds the lock, before its caller gets
    /// [`AppendError::Store`](es_core::AppendError::Store). One try waits for the lock for up to 5 seconds. Default: 10 seconds.
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// How long each step of [`SqliteStore::close`](crate::SqliteStore::close) may take: the queued appends, and the
    /// connections. Default: 10 seconds.
    pub fn close_within(self, limit: Duration) -> Self {
        Self { close_within: limit, ..self }
    }
}
