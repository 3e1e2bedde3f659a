//! The port to the tables of table projections.

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    error::BoxError,
    read::read_model::{Changes, CommitError, Generation, Lease, ReadModelError, ReadModelStore},
};

/// A store in a database in which projections may have tables of their own.
///
/// The tables follow the generation that they belong to: [`Generations::promote`](super::super::read_model::Generations::promote)
/// gives them the public names in its transaction, and when a generation is replaced or discarded, its tables are dropped as soon as
/// no [reading](Self::read_tables) uses them any more.
#[async_trait]
pub trait TableStore: ReadModelStore + Sized {
    /// What a projection writes with: the connection in the store's transaction.
    type Tables<'c>: Send;

    /// What queries read with.
    type Reading: TableReading;

    /// Makes the tables of `generation` by `migrations`, in one transaction, unless they are there.
    ///
    /// # Errors
    /// [`CreateTablesError`]; nothing was made.
    ///
    /// # Cancel safety
    /// Dropping the future leaves either nothing or the whole.
    async fn create_tables(
        &self,
        generation: &Generation,
        migrations: &'static [&'static str],
    ) -> Result<(), CreateTablesError>;

    /// As [`Leases::commit`](super::super::read_model::Leases::commit), and what `write` does commits in the same transaction. The
    /// lease is checked first: without it `write` is not called. Neither is it where a message of the inbox is known already. The tables are those of the lease's generation under their plain
    /// names.
    ///
    /// # Errors
    /// [`CommitTablesError`]. Except after an error of the store, of which the outcome is unknown, nothing was written.
    ///
    /// # Cancel safety
    /// Dropping the future leaves either nothing or the whole.
    async fn commit_tables(
        &self,
        lease: &Lease,
        changes: Changes,
        write: &dyn TableWrite<Self>,
    ) -> Result<(), CommitTablesError>;

    /// The tables of the generation that serves `projection`, as of this moment, in a transaction that only reads; `None` where none
    /// serves. They stay the same ones until it is dropped, also if another generation is promoted meanwhile (R12).
    ///
    /// # Errors
    /// [`ReadModelError`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    async fn read_tables(&self, projection: &str) -> Result<Option<Self::Reading>, ReadModelError>;
}

/// A transaction that reads the tables of one generation.
pub trait TableReading: Send {
    /// The generation.
    fn generation(&self) -> &Generation;
}

/// What is written into tables.
#[async_trait]
pub trait TableWrite<S: TableStore>: Sync {
    /// Writes.
    ///
    /// # Errors
    /// [`WriteError`]: the store rolls back.
    async fn write(&self, tables: &mut S::Tables<'_>) -> Result<(), WriteError>;

    /// After how long it ends with [`WriteError::TooSlow`].
    fn time_limit(&self) -> Option<Duration>;
}

/// Why nothing was written into tables.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The projection, or the database for one of its statements.
    #[error("the projection has failed")]
    Failed(#[source] BoxError),
    /// The projection panicked.
    #[error("the projection panicked")]
    Panicked,
    /// The projection took too long, and was interrupted.
    #[error("the projection took {} ms", .0.as_millis())]
    TooSlow(Duration),
    /// The worker ends, and does not wait for it any more.
    #[error("the worker ends")]
    Stopped,
}

impl WriteError {
    /// Whether writing the same events again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Stopped)
    }
}

/// Why a commit with tables did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitTablesError {
    /// What was to be written into the tables.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Another worker has handled one of the messages, which its producer has sent to two partitions.
    #[error("another worker has handled one of the messages meanwhile")]
    Handled,
    /// The rest of it.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl CommitTablesError {
    /// Whether sending the same commit again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Write(error) => error.is_transient(),
            Self::Handled => true,
            Self::Commit(error) => error.is_transient(),
        }
    }
}

/// Why there are no tables.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateTablesError {
    /// A migration failed.
    #[error("migration {number} of {projection} failed")]
    Migration {
        /// The name of the projection.
        projection: String,
        /// Its number, from 1.
        number: usize,
        /// The error of the database.
        #[source]
        reason: BoxError,
    },
    /// The names of the tables are too long, or something else in the database has them.
    #[error("the tables of {projection} cannot have the name {name:?}, which is {why}")]
    Name {
        /// The name of the projection.
        projection: String,
        /// The name.
        name: String,
        /// Why it cannot be taken.
        why: &'static str,
    },
    /// The role of the store may not make tables.
    #[error("the store's role may not make tables")]
    Forbidden(#[source] BoxError),
    /// The generation was replaced or discarded.
    #[error("the generation is gone")]
    Gone,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] ReadModelError),
}

impl CreateTablesError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient(),
            Self::Gone => true,
            _ => false,
        }
    }
}
