//! A history from elsewhere, written into the log by `COPY`.
//!
//! Two run side by side: one takes events from their source, checks them and writes them out as rows; the
//! other takes the lane, gives the rows of a chunk their numbers, copies and commits. Two chunks go round
//! between them, so memory is bounded (R17) and the source is read no faster than the database writes.

use std::{convert::Infallible, fmt};

use chrono::{DateTime, Utc};
use es_core::{
    BoxError, EventData, InvalidAppend, Metadata, Position, ReadError, RecordedEvent, StreamId, Tag, Witness,
};
use futures_util::{Stream, stream};
use uuid::Uuid;

use crate::{error, store::PostgresStore};

mod chunk;
mod feed;
mod streams;
mod write;

pub(crate) use write::Line;

/// An event of a history that another store recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The stream it goes to. Its version there is the next one.
    pub stream: StreamId,
    /// Its identity, which it keeps.
    pub id: Uuid,
    /// When it was recorded, which it keeps to the microsecond. So an import that is made again after an older copy of
    /// the log was restored is not noticed by checkpoints that end with one of its events: see
    /// [`Witness`](es_core::Witness).
    pub recorded_at: DateTime<Utc>,
    /// Its content.
    pub data: EventData,
    /// What is known about it.
    pub metadata: Metadata,
    /// By what queries find it.
    pub tags: Vec<Tag>,
}

/// An event of another log. Its position and its version are drawn anew; its tags, which no log gives
/// back, are to be added.
impl From<RecordedEvent> for Imported {
    fn from(event: RecordedEvent) -> Self {
        let RecordedEvent { stream, id, recorded_at, data, metadata, .. } = event;
        Self { stream, id, recorded_at, data, metadata, tags: Vec::new() }
    }
}

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
#[error("the import stopped behind {} events", progress.events)]
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
    /// The history begins behind what was imported.
    #[error("the history starts at index {start}, but only {imported} events are imported")]
    Ahead { start: u64, imported: u64 },
    /// The history is not the one that this import began with.
    #[error("the history has another event at index {index} than the one that was imported, or none")]
    OtherHistory { index: u64 },
    /// Somebody else has gone on with the import of this name.
    #[error("somebody else imports under this name and has come to {imported} events")]
    Overtaken { imported: u64 },
    /// The log or a stream has no room below 2^63.
    #[error("there are no positions or versions left")]
    Full,
    /// The database refuses an event of the chunk (a constraint, a trigger); again would be in vain.
    #[error("the store refuses an event of the next chunk")]
    Refused(#[source] BoxError),
    /// The store failed, or the lane was not to be had in time; import again to go on.
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

/// An import by name, made by [`PostgresStore::import`].
#[must_use = "an import that is given no events does nothing"]
pub struct Import<'a> {
    store: &'a PostgresStore,
    name: String,
    start: u64,
    chunk_events: usize,
    chunk_bytes: usize,
}

impl PostgresStore {
    /// The import `name`: writes a history from elsewhere into the log, far faster than appends would.
    ///
    /// Positions go on behind the head and versions behind those of streams that exist; ids, instants and
    /// metadata are kept. It goes chunk by chunk, each in a transaction of its own that holds the lane:
    /// writers go on in between, and readers see whole chunks, in order (R3). No command is remembered.
    ///
    /// What is written and how far the import has come commit together, under its name. So after whatever
    /// has cut it off (a crash, a lost connection, a commit of which nobody heard) call it again with the
    /// same name and the same history: it skips what is in the log and goes on behind it (R6).
    ///
    /// ```no_run
    /// # async fn example(from: es_core::MemoryStore, to: es_postgres::PostgresStore) -> Result<(), Box<dyn std::error::Error>> {
    /// use es_core::{EventStore, Position};
    /// use es_postgres::Imported;
    ///
    /// let history = from.read_log(Position::ZERO, 1_000_000).await?;
    /// let done = to.import("from-memory").events(history.into_iter().map(Imported::from)).await?;
    /// println!("{} events, the last one at position {}", done.events, done.position);
    /// # Ok(())
    /// # }
    /// ```
    pub fn import(&self, name: impl Into<String>) -> Import<'_> {
        Import { store: self, name: name.into(), start: 0, chunk_events: 20_000, chunk_bytes: 8 * 1024 * 1024 }
    }
}

impl Import<'_> {
    /// How far it has come, in this or any other process.
    ///
    /// # Errors
    /// [`ReadError::Store`].
    pub async fn progress(&self) -> Result<ImportProgress, ReadError> {
        self.find().await.map_err(error::read)
    }

    /// The first event given is the one at `index` of the history, where the source can start there: at
    /// [`ImportProgress::events`] nothing needs to be skipped, and nothing can be compared either.
    pub fn starting_at(self, index: u64) -> Self {
        Self { start: index, ..self }
    }

    /// The most events of one chunk, 20,000 unless set: for how long writers wait (some 0.1 s), and how often for the disk.
    pub fn chunk_events(self, events: usize) -> Self {
        Self { chunk_events: events.max(1), ..self }
    }

    /// A chunk ends when it has this many bytes, 8 MiB unless set. Two are in memory at a time.
    pub fn chunk_bytes(self, bytes: usize) -> Self {
        Self { chunk_bytes: bytes.max(1), ..self }
    }

    /// Writes `events`, the whole history in order.
    ///
    /// # Errors
    /// # Cancel safety
    /// As [`stream`](Self::stream).
    pub async fn events(self, events: impl IntoIterator<Item = Imported>) -> Result<ImportProgress, ImportError> {
        self.stream(stream::iter(events.into_iter().map(Ok::<_, Infallible>))).await
    }

    /// Writes the events of a source that takes its time and may fail.
    ///
    /// # Errors
    /// [`ImportError`] tells how far it came. Nothing of the chunk that an invalid event belongs to is
    /// written; the chunks before it are.
    ///
    /// # Cancel safety
    /// Dropping the future leaves whole chunks.
    pub async fn stream<E: Into<BoxError>>(
        self,
        events: impl Stream<Item = Result<Imported, E>>,
    ) -> Result<ImportProgress, ImportError> {
        // In a box: it holds two statements and a chunk's worth of state, and callers hold it in theirs.
        Box::pin(self.run(events)).await
    }
}

impl fmt::Debug for Import<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Import").field("name", &self.name).finish_non_exhaustive()
    }
}
