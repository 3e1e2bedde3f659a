//! The errors of this crate, and how SQLite's errors become those of the framework.

use std::path::PathBuf;

use es_core::{
    ActError, AppendError, ReadError,
    backend::{CommitError, PromoteError, ReadModelError, SnapshotError, StoreMoved},
    error::BoxError,
};
use sqlx::migrate::MigrateError;

use crate::{identity::FileReplaced, inline::Behind};

/// Why a file could not be opened as an event store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The call was not made inside a tokio runtime.
    #[error("a store needs a tokio runtime")]
    NoRuntime,
    /// The directory of the file does not exist.
    #[error("the directory {} does not exist", .directory.display())]
    NoDirectory {
        /// Which directory.
        directory: PathBuf,
    },
    /// There is no such file, and it was not to be created.
    #[error("there is no file {}", .file.display())]
    NoFile {
        /// Which file.
        file: PathBuf,
    },
    /// The schema of the file is older than this program, or the file has none of it, and it was not to be changed.
    #[error("migrations {missing:?} are missing in the file")]
    NotMigrated {
        /// Their numbers.
        missing: Vec<i64>,
    },
    /// The file is not an SQLite database.
    #[error("the file is not an SQLite database")]
    NotADatabase(#[source] BoxError),
    /// Another process kept the file locked for longer than a few seconds.
    #[error("the file is locked by another process")]
    Locked(#[source] BoxError),
    /// A newer version of this crate has written to the file.
    #[error("the file has schema version {found}, which is newer than this program")]
    NewerSchema {
        /// The file's schema version.
        found: i64,
    },
    /// The schema cannot be brought up to date: the file holds tables of another program, or the tables of this crate
    /// were changed.
    #[error("the schema cannot be brought up to date")]
    Schema(#[source] BoxError),
    /// The file cannot be read or written.
    #[error("the file cannot be opened")]
    File(#[source] BoxError),
}

impl OpenError {
    /// Whether opening it again may help, unchanged.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Locked(_) => true,
            Self::File(cause) => cause.downcast_ref().is_some_and(may_pass),
            _ => false,
        }
    }
}

impl From<sqlx::Error> for OpenError {
    fn from(error: sqlx::Error) -> Self {
        match primary_code(&error) {
            Some(code::NOTADB) => Self::NotADatabase(error.into()),
            Some(code::BUSY | code::LOCKED) => Self::Locked(error.into()),
            _ => Self::File(error.into()),
        }
    }
}

impl From<MigrateError> for OpenError {
    fn from(error: MigrateError) -> Self {
        match error {
            // A migration in the file that this version lacks: migrations are only ever added.
            MigrateError::VersionMissing(found) => Self::NewerSchema { found },
            MigrateError::Execute(cause) if primary_code(&cause) != Some(code::ERROR) => cause.into(),
            error => Self::Schema(error.into()),
        }
    }
}

/// Why a store did not close cleanly. Except after [`Replaced`](Self::Replaced), what was acknowledged is durable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    /// Work in flight did not end in time and was abandoned. The outcome of its writes is unknown.
    #[error("the work in flight did not end in time")]
    Unfinished,
    /// The file was removed or replaced while it was open: what was written to it may be lost.
    #[error(transparent)]
    Replaced(#[from] FileReplaced),
    /// The write-ahead log was not moved into the file. The next process that opens the file does so.
    #[error("the write-ahead log was not moved into the database file")]
    Checkpoint(#[source] BoxError),
}

impl CloseError {
    /// Whether closing it again may help: it does not, the store is closed.
    pub fn is_transient(&self) -> bool {
        false
    }
}

/// Why an operation on the open file failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the store is closed")]
    Closed,
    #[error("the task ended before its work was done")]
    Interrupted,
    #[error(transparent)]
    Replaced(#[from] FileReplaced),
    #[error("an inline read model does not have the events before")]
    Behind(Behind),
    #[error("SQLite failed")]
    Database(#[from] sqlx::Error),
    #[error("SQLite failed")]
    InPlace(#[from] rusqlite::Error),
}

impl Failure {
    /// The cause that a port returns. Engines stop where the file is no longer the one that was opened.
    fn cause(self) -> BoxError {
        match self {
            Self::Replaced(replaced) => StoreMoved(replaced.into()).into(),
            failure => failure.into(),
        }
    }
}

impl From<Failure> for AppendError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Closed => Self::Closed,
            Failure::Behind(Behind { behind, .. }) => behind.into(),
            failure => Self::Store(failure.cause()),
        }
    }
}

impl From<Failure> for ReadError {
    fn from(failure: Failure) -> Self {
        Self::Store(failure.cause())
    }
}

impl From<Failure> for SnapshotError {
    fn from(failure: Failure) -> Self {
        Self(failure.cause())
    }
}

impl From<Failure> for ReadModelError {
    fn from(failure: Failure) -> Self {
        Self(failure.cause())
    }
}

impl From<Failure> for CommitError {
    fn from(failure: Failure) -> Self {
        Self::Store(ReadModelError::from(failure))
    }
}

impl From<Failure> for ActError {
    fn from(failure: Failure) -> Self {
        Self::Store(ReadModelError::from(failure))
    }
}

impl From<Failure> for PromoteError {
    fn from(failure: Failure) -> Self {
        Self::Store(ReadModelError::from(failure))
    }
}

/// Whether the same write may succeed later, unchanged: another process holds a lock, the disk is full or fails, or
/// memory is short.
pub(crate) fn may_pass(error: &sqlx::Error) -> bool {
    use code::{BUSY, CANTOPEN, FULL, IOERR, LOCKED, NOMEM, PROTOCOL};
    let code = primary_code(error);
    // A connection could not be opened, or its thread has ended.
    matches!(code, Some(BUSY | LOCKED | NOMEM | IOERR | FULL | CANTOPEN | PROTOCOL))
        || matches!(error, sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed)
}

/// Whether SQLite refused the data that was written, so that a retry fails too (R4).
pub(crate) fn is_refusal(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some(code::CONSTRAINT | code::TOOBIG | code::MISMATCH))
}

/// SQLite's primary result codes, <https://sqlite.org/rescode.html>.
mod code {
    pub(super) const ERROR: i32 = 1;
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const NOMEM: i32 = 7;
    pub(super) const IOERR: i32 = 10;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const PROTOCOL: i32 = 15;
    pub(super) const TOOBIG: i32 = 18;
    pub(super) const CONSTRAINT: i32 = 19;
    pub(super) const MISMATCH: i32 = 20;
    pub(super) const NOTADB: i32 = 26;
}

/// The lowest byte of the extended code that sqlx reports as text.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}
