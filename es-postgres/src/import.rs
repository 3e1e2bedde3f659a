//! A history from elsewhere, written into the log by `COPY`.
//!
//! Two run side by side: one takes events from their source, checks them and writes them out as rows; the
//! other takes the append lock, gives the rows of a chunk their numbers, copies and commits. Two chunks go round
//! between them, so memory is bounded (R17) and the source is read no faster than the database writes.

use std::{convert::Infallible, fmt};

use es_core::{ReadError, backend::BoxError};
use futures_util::{Stream, stream};

use crate::{error, store::PostgresStore};

mod chunk;
mod event;
mod feed;
pub(crate) mod line;
mod outcome;
mod streams;
mod write;

pub use event::Imported;
pub use outcome::{ImportError, ImportFailure, ImportProgress};

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
    /// Positions follow the head and versions follow those of streams that exist; ids, instants and
    /// metadata are kept. It goes chunk by chunk, each in a transaction of its own that holds the append lock:
    /// writers go on in between, and readers see whole chunks, in order (R3). No command is remembered.
    ///
    /// What is written and how far the import has come commit together, under its name. So after whatever
    /// has cut it off (a crash, a lost connection, a commit whose answer was lost) call it again with the
    /// same name and the same history: it skips what is in the log and continues after it (R6).
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
