//! Why a service does not start.

use crate::read::{engine_error::EngineError, read_model::ReadModelError};

/// Why a service was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The name of the service is invalid; a relay and consumer groups are named after it.
    #[error("{0:?} is no name of a service: it must be 1 to 64 bytes of a-z, 0-9 and '-'")]
    Name(String),
    /// Two parts have the same name.
    #[error("two parts of the service are named {name:?}")]
    Duplicate {
        /// The name.
        name: &'static str,
    },
    /// Two live read models have the same name.
    #[error("two live read models of the service are named {name:?}")]
    DuplicateLive {
        /// The name.
        name: &'static str,
    },
    /// Two kinds of aggregates write to streams of the same category.
    #[error("two aggregates of the service have the category {category:?}")]
    DuplicateAggregate {
        /// The category.
        category: &'static str,
    },
    /// A part was chosen that is not registered.
    #[error("the service has no part {name:?}; it has {known:?}")]
    Unknown {
        /// The name that was chosen.
        name: String,
        /// The names that are registered.
        known: Vec<String>,
    },
    /// An inline read model was to have several shards.
    #[error("the inline read model {name:?} has one shard: the store folds it with each append")]
    InlineShards {
        /// Its name.
        name: &'static str,
    },
    /// The keys of an inline read model were to be parked.
    #[error("the inline read model {name:?} parks no keys: an event that it cannot be folded with is not appended")]
    InlineParks {
        /// Its name.
        name: &'static str,
    },
    /// The store folds no read models with its appends.
    #[error("the store cannot fold the read model {name:?} with its appends: register it with `.projection(…)`")]
    InlineUnsupported {
        /// The name of the read model.
        name: &'static str,
    },
    /// A projection cannot run as it is set up.
    #[error("the projection {name} cannot run as it is set up")]
    Projection {
        /// Its name.
        name: String,
        /// Why: [`EngineError::UniqueInShards`], [`EngineError::NotPerStream`], or that it cannot forward events
        /// ([`SourceError::CannotForward`](crate::backend::SourceError::CannotForward)).
        #[source]
        cause: Box<EngineError>,
    },
    /// A saga cannot run as it is defined.
    #[error("the saga {name} cannot run as it is defined: {flaw}")]
    Saga {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        flaw: String,
    },
    /// The store cannot be read.
    #[error("the service cannot read its store")]
    Store(#[from] ReadModelError),
}

impl StartError {
    /// Whether starting it again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_transient())
    }
}
