//! Why a document cannot be folded when it is read.

use crate::{counted::counted, read::engine_error::EngineError, stream::Version, write::store::ReadError};

/// Why a document could not be folded when it was read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LiveError {
    /// The events cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An event of the document cannot be decoded or folded.
    #[error(transparent)]
    Fold(#[from] EngineError),
    /// The projection does not say how the events of a document are found by an index.
    #[error(
        "the events of a document of {projection} are found by no index: LiveProjection::events_of must give streams, or \
         queries of which each item has a tag"
    )]
    NotIndexed {
        /// The name of the projection.
        projection: &'static str,
    },
    /// A version was named, and the events of the document are not those of one stream.
    #[error("the documents of {projection} have no versions, since their events are not those of one stream each")]
    NoVersions {
        /// The name of the projection.
        projection: &'static str,
    },
    /// The stream has no such version.
    #[error("the stream of {key:?} has {} and no version {wanted}", counted(found.get(), "event"))]
    NoSuchVersion {
        /// The key of the document.
        key: String,
        /// The version that was named.
        wanted: Version,
        /// How many events the stream has.
        found: Version,
    },
}

impl LiveError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Read(error) => error.is_transient(),
            Self::Fold(error) => error.is_transient(),
            _ => false,
        }
    }
}
