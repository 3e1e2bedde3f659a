//! Why a watch ended.

use crate::{
    read::{engine_error::EngineError, query::QueryError},
    stream::Position,
    write::store::ReadError,
};

/// Why a watch ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The read model was made without its projection and log: ask a [`Service`](crate::Service) for it in which the projection
    /// is registered, or call [`ReadModel::watched_with`](crate::ReadModel::watched_with).
    #[error("the read model {projection} cannot be watched: its projection is not registered")]
    Unregistered {
        /// Which one.
        projection: &'static str,
    },
    /// Another generation was promoted. Watch it from [the current state](super::Since::Now): its other documents may have changed too.
    #[error("the read model {projection} was replaced by another generation")]
    Replaced {
        /// Which one.
        projection: &'static str,
    },
    /// The store was restored from an older copy. Begin with the current state.
    #[error(
        "the read model had reached position {reached}, and now the store ends at {end}: it was restored from an older copy"
    )]
    History {
        /// The position that it had reached.
        reached: Position,
        /// Where it or the log ends now.
        end: Position,
    },
    /// The log has another event than the one up to which the changes were told: the store was restored from an older copy, and has
    /// gone on. Begin with the current state.
    #[error("the log has another event at position {position} than before: it was restored from an older copy")]
    OtherHistory {
        /// The position up to which the changes were told.
        position: Position,
    },
    /// The projection does not tell which documents an event touches that its reader has passed, though no operator has skipped it:
    /// other code has folded it. Begin with the current state.
    #[error("it is not known which documents an event touches")]
    Event(#[source] EngineError),
    /// The documents cannot be read.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] ReadError),
}

impl WatchError {
    /// Whether the same watch, begun again where it has ended, may go on.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Query(error) => error.is_transient(),
            Self::Log(error) => error.is_transient(),
            _ => false,
        }
    }
}
