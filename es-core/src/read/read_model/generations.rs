//! The port to the generations of a read model: one serves, another may be building.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{error::ReadModelError, fields::DeclaredField, reader::Reader};
use crate::stream::Position;

/// Keeps the copies of a read model: one *generation* serves queries, another may be building at the same time.
///
/// # Cancel safety
/// Dropping the future of any call leaves either nothing or the whole.
#[async_trait]
pub trait Generations: fmt::Debug + Send + Sync + 'static {
    /// The generation in `state` of `projection`; where there is none, a new and empty one of `version` that is folded by
    /// `definition` and whose documents have `fields`. Two callers at once get the same one, with what the first has declared.
    ///
    /// # Errors
    /// [`EnsureError::OtherReader`] when a policy has the name.
    async fn ensure_generation(
        &self,
        projection: &str,
        version: u32,
        state: GenerationState,
        definition: &str,
        fields: &[DeclaredField],
    ) -> Result<Generation, EnsureError>;

    /// The state of `generation`; `None` when it was replaced or discarded.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn state(&self, generation: &Generation) -> Result<Option<GenerationState>, ReadModelError>;

    /// Replaces the serving generation by the building one, in one step: queries see the whole old or the whole new one, and
    /// workers of the old one are fenced (R12). The documents of the old one are deleted.
    ///
    /// Where a newer version served, that one and those up to it are withdrawn: only
    /// [`Promotion::OnPurpose`] makes them serve again.
    ///
    /// # Errors
    /// [`PromoteError::Behind`] when it has not reached what queries may have seen already. It must have reached the position of
    /// each shard of the old one: in the same shard, or, if it has no such shard because it reads from another source, in its
    /// slowest shard. And its slowest shard must have reached the slowest of the old one, so that the position that the
    /// [serving](GenerationSet::serving) generation has reached never falls.
    /// [`PromoteError::Withdrawn`] when its version was withdrawn, or is older than the one that serves, and `promotion` is
    /// [`Promotion::Automatic`].
    async fn promote(&self, building: &Generation, promotion: Promotion) -> Result<(), PromoteError>;

    /// Deletes a building generation with its documents and checkpoints; no-op where there is none.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn discard(&self, building: &Generation) -> Result<(), ReadModelError>;
}

#[async_trait]
impl<T: Generations + ?Sized> Generations for Arc<T> {
    async fn ensure_generation(
        &self,
        projection: &str,
        version: u32,
        state: GenerationState,
        definition: &str,
        fields: &[DeclaredField],
    ) -> Result<Generation, EnsureError> {
        (**self).ensure_generation(projection, version, state, definition, fields).await
    }

    async fn state(&self, generation: &Generation) -> Result<Option<GenerationState>, ReadModelError> {
        (**self).state(generation).await
    }

    async fn promote(&self, building: &Generation, promotion: Promotion) -> Result<(), PromoteError> {
        (**self).promote(building, promotion).await
    }

    async fn discard(&self, building: &Generation) -> Result<(), ReadModelError> {
        (**self).discard(building).await
    }
}

/// One copy of a read model: a reader with documents.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Generation {
    /// What its checkpoints belong to. It has the name of the projection.
    pub reader: Reader,
    /// [`Projection::VERSION`](crate::Projection::VERSION) that folds it.
    pub version: u32,
}

/// The state of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerationState {
    /// Queries read it.
    Serving,
    /// It is being built while another one serves, or none does.
    Building,
}

impl GenerationState {
    /// The word that stores keep.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Building => "building",
        }
    }

    /// The state whose word [`as_str`](Self::as_str) returned.
    pub fn from_stored(word: &str) -> Option<Self> {
        [Self::Serving, Self::Building].into_iter().find(|state| state.as_str() == word)
    }
}

/// The generations of a projection at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GenerationSet {
    /// The one that queries read.
    pub serving: Option<Progress>,
    /// The one that is being built.
    pub building: Option<Progress>,
    /// The newest version that was withdrawn when an older one was promoted; 0 where there is none.
    pub withdrawn: u32,
}

impl GenerationSet {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Progress> {
        self.serving.iter().chain(&self.building)
    }

    /// The progress of `generation` in either state; `None` when it was replaced or discarded.
    pub fn of(&self, generation: &Generation) -> Option<&Progress> {
        self.iter().find(|progress| progress.generation == *generation)
    }
}

/// The progress of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Which one.
    pub generation: Generation,
    /// The definition by which it is folded.
    pub definition: String,
    /// Every event up to this position is in it: the least of its checkpoints, 0 where it has none.
    pub reached: Position,
    /// The greatest of its checkpoints.
    pub furthest: Position,
}

/// Who promotes a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promotion {
    /// A worker, because no generation serves or the version is newer than the one that serves.
    Automatic,
    /// An operator, also over a newer version.
    OnPurpose,
}

/// Why there is no generation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnsureError {
    /// A reader without documents has the name.
    #[error("another reader has the name: {definition}")]
    OtherReader {
        /// Its definition.
        definition: String,
    },
    /// The store failed; the outcome is unknown.
    #[error(transparent)]
    Store(#[from] ReadModelError),
}

impl EnsureError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_transient())
    }
}

/// Why a generation was not promoted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromoteError {
    /// Queries would go back in time.
    #[error("the new generation has reached {building}, the serving one {serving}")]
    Behind {
        /// The position that the new one has reached.
        building: Position,
        /// The position that the old one has reached.
        serving: Position,
    },
    /// An operator has replaced this version by an older one.
    #[error("version {serving} serves on purpose and the version of the new generation was withdrawn")]
    Withdrawn {
        /// The version that serves.
        serving: u32,
    },
    /// It is not building, or no more.
    #[error("the generation is not building")]
    NotBuilding,
    /// The store failed; the outcome is unknown.
    #[error(transparent)]
    Store(#[from] ReadModelError),
}

impl PromoteError {
    /// Whether promoting it again may help, if no more events are folded.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_transient())
    }
}

#[cfg(test)]
mod tests {
    use super::GenerationState;

    #[test]
    fn a_state_is_read_from_the_word_that_stores_keep() {
        for (state, word) in [(GenerationState::Serving, "serving"), (GenerationState::Building, "building")] {
            assert_eq!((state.as_str(), GenerationState::from_stored(word)), (word, Some(state)));
        }
        assert_eq!(GenerationState::from_stored("gone"), None);
    }
}
