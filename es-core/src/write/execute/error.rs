//! Why commands fail.

use super::LoadError;
use crate::{
    codec::EncodeError,
    counted::counted,
    event::NewEventError,
    stream::{Conflict, InvalidStream},
    tag::TagError,
    write::store::AppendError,
};

/// Why a command was not executed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError<E: std::error::Error + 'static> {
    /// The aggregate refuses: its own words, untouched.
    #[error(transparent)]
    Rejected(E),
    /// The aggregate no longer has the version that the client saw ([`CommandContext::if_version`](super::CommandContext::if_version)).
    #[error("the aggregate has changed since it was read")]
    Stale(#[source] Conflict),
    /// Others were faster every time.
    #[error("other commands were faster, {}", counted(*attempts, "time"))]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// The aggregate could not be loaded.
    #[error("the aggregate cannot be loaded")]
    Load(#[from] LoadError),
    /// An event would not be read as it was written (R14).
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// An event's own rule makes an invalid tag of it. Nothing was written.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// The events could not be appended.
    #[error("the events cannot be appended")]
    Append(#[from] AppendError),
}

impl<E: std::error::Error + 'static> ExecuteError<E> {
    /// Whether executing the command again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Contended { .. } => true,
            Self::Load(error) => error.is_transient(),
            Self::Append(error) => error.is_transient(),
            _ => false,
        }
    }

    /// Whether newer code has written an event that would have to be read: trying again may help in a process of that code.
    pub(crate) fn is_of_newer_code(&self) -> bool {
        matches!(self, Self::Load(LoadError::Decode(error)) if error.reason.is_of_newer_code())
    }
}

impl<E: std::error::Error + 'static> From<InvalidStream> for ExecuteError<E> {
    fn from(error: InvalidStream) -> Self {
        Self::Load(error.into())
    }
}

impl<E: std::error::Error + 'static> From<NewEventError> for ExecuteError<E> {
    fn from(error: NewEventError) -> Self {
        match error {
            NewEventError::Encode(error) => error.into(),
            NewEventError::Tag(error) => error.into(),
        }
    }
}
