//! How far an import has come, and why it stopped.

use chrono::{DateTime, Utc};
use es_core::{
    Position,
    backend::{BoxError, InvalidAppend, StoreMoved, Witness, counted},
};

/// How far an import has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportProgress {
    /// How many events of its history are in the log, from the first one on.
    pub events: u64,
    /// The position of the last of them; 0 where there is none.
    pub position: Position,
    /// The last of them, by which another history is told from this one.
    pub last: Option<Witness>,
}

/// Why an import stopped, and how far it came.
#[derive(Debug, thiserror::Error)]
#[error("the import stopped after {}", counted(progress.events, "event"))]
pub struct ImportError {
    /// What is in the log for sure, as far as this call knows.
    pub progress: ImportProgress,
    /// Why there is no more.
    #[source]
    pub reason: ImportFailure,
}

/// Why an import stopped. Unless it says otherwise, nothing was written beyond
/// [`ImportError::progress`]. An `index` counts the events of the whole history from 0.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum ImportFailure {
    /// The import's name breaks a rule.
    #[error("the name of an import has 1 to 255 bytes and no control characters")]
    Name,
    /// The source of the history failed.
    #[error("the history cannot be read any further")]
    History(#[source] BoxError),
    /// An event breaks a rule that holds for appends too.
    #[error("the event at index {index} is invalid")]
    Invalid { index: u64, reason: InvalidAppend },
    /// An event was recorded before the first instant that Postgres knows.
    #[error("the event at index {index} was recorded at {at}, which is before the calendar of Postgres")]
    RecordedAt { index: u64, at: DateTime<Utc> },
    /// The history begins after what was imported.
    #[error("the history starts at index {start}, and {} before it {} imported", counted(*imported, "event"), if *imported == 1 { "is" } else { "are" })]
    Ahead { start: u64, imported: u64 },
    /// The history is not the one that this import began with.
    #[error("the history has another event at index {index} than the one that was imported, or none")]
    OtherHistory { index: u64 },
    /// Another process has gone on with the import of this name.
    #[error("another process imports under this name and has imported {}", counted(*imported, "event"))]
    Overtaken { imported: u64 },
    /// The log or a stream has no room below 2^63.
    #[error("there are no positions or versions left")]
    Full,
    /// The database refuses an event of the chunk (a constraint, a trigger); trying again does not help.
    #[error("the store refuses an event of the next chunk")]
    Refused(#[source] BoxError),
    /// The store failed, or the append lock was not to be had in time; import again to go on.
    #[error("the store failed")]
    Store(#[source] BoxError),
    /// The store failed while it committed: whether the next chunk is in the log is unknown. Import again
    /// to go on: it looks.
    #[error("the store failed during a commit")]
    Unknown(#[source] BoxError),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

impl ImportError {
    /// Whether importing again may help: it goes on where it stopped.
    pub fn is_transient(&self) -> bool {
        self.reason.is_transient()
    }
}

impl ImportFailure {
    /// Whether importing again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(cause) | Self::Unknown(cause) => !StoreMoved::is_in(cause),
            Self::Closed => true,
            _ => false,
        }
    }
}
