//! Why engines stop, and the causes behind failures of a backend.

use std::fmt;

use crate::{
    codec::{EncodeError, Misfit},
    event::Recorded,
    projection::Unfoldable,
    read_model::{CommitError, PromoteError, ReadModelError, Shard},
    schema::DecodeError,
    source::SourceError,
    stream::Position,
};

/// The backend's own error, kept as the source of the framework's.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Which event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Its place in the log.
    pub position: Position,
    /// Its stream and version.
    pub event: String,
}

impl Location {
    pub(crate) fn of<D>(event: &Recorded<D>) -> Self {
        Self { position: event.position, event: format!("{}@{}", event.stream, event.version) }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at position {}", self.event, self.position)
    }
}

/// Why a projector, a rebuild or a policy stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The source cannot deliver.
    #[error("no events can be had")]
    Source(#[from] SourceError),
    /// The read model store failed.
    #[error(transparent)]
    Store(#[from] ReadModelError),
    /// Another worker has taken a shard.
    #[error("another worker has taken shard {0}")]
    Fenced(Shard),
    /// The generation that it kept no longer serves.
    #[error("another generation has taken its place")]
    Replaced,
    /// The read model was fed by another source, whose shards stand at different positions: there
    /// is no one position from which this source could go on. Rebuild it from this source.
    #[error("the read model is fed by another source and cannot go on from {0:?} without a rebuild")]
    OtherSource(String),
    /// A newer version of the projection serves: this program is too old for it.
    #[error("version {serving} serves, this program folds version {ours}")]
    Outdated {
        /// What serves.
        serving: u32,
        /// What this program knows.
        ours: u32,
    },
    /// The projection declares [`Order::PerStream`](crate::Order::PerStream) and listens to more than one category.
    #[error("a projection in per-stream order listens to exactly one category")]
    NotPerStream,
    /// An event cannot be read (R14).
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A key breaks the rules of [`Projection::keys`](crate::Projection::keys), or, in per-stream order, is not the id of
    /// the event's stream.
    #[error("{event} asks for the document {key:?}, which is no key for it")]
    Key {
        /// The key.
        key: String,
        /// The event.
        event: Location,
    },
    /// An event contradicts its document.
    #[error("{event} cannot be folded into {key:?}")]
    Unfoldable {
        /// The document's key.
        key: String,
        /// The event.
        event: Location,
        /// The projection's own words.
        #[source]
        reason: Unfoldable,
    },
    /// A stored document does not have the form that the code expects.
    #[error("the document {key:?} does not fit; was the projection's version increased when its form changed?")]
    Document {
        /// Its key.
        key: String,
        /// In what way.
        #[source]
        reason: Misfit,
    },
    /// A document would not be read as it was written: nothing of its batch was committed.
    #[error("the document {key:?} of {projection} would not be read as it was written")]
    Unwritable {
        /// Of which projection.
        projection: &'static str,
        /// Its key.
        key: String,
        /// Which field, and why.
        #[source]
        reason: EncodeError,
    },
    /// It was told to stop in the middle of a batch of reactions, which come again.
    #[error("interrupted by the shutdown")]
    Interrupted,
    /// The rebuilt generation could not be promoted.
    #[error("the new generation cannot take its place")]
    Promote(#[source] PromoteError),
    /// A policy could not react.
    #[error("no reaction to {event}")]
    Reaction {
        /// The event.
        event: Location,
        /// Whether the policy thinks that trying again may help.
        transient: bool,
        /// The policy's own words.
        #[source]
        reason: BoxError,
    },
}

impl EngineError {
    /// Whether waiting and trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Source(error) => error.is_transient(),
            Self::Store(_) | Self::Fenced(_) | Self::Replaced | Self::Interrupted => true,
            Self::Promote(error) => matches!(error, PromoteError::Store(_)),
            Self::Reaction { transient, .. } => *transient,
            _ => false,
        }
    }
}

impl From<CommitError> for EngineError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Fenced(shard) => Self::Fenced(shard),
            CommitError::Store(error) => Self::Store(error),
        }
    }
}
