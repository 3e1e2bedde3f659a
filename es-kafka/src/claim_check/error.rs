//! Why a payload does not come from object storage.

use es_core::{backend::SourceError, error::BoxError};
use object_store::Error;

/// Why the payload of a record cannot be read. Each names the record (topic, partition and offset) and the object.
///
/// It is the source of [`SourceError::Refused`], or of [`SourceError::Unavailable`] where trying again may help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// This reader does not know where payloads are.
    #[error("the payload of the record at {place} is the object {object:?}, and no object storage is declared")]
    Undeclared {
        /// The record.
        place: String,
        /// The object.
        object: String,
    },
    /// There is no such object.
    #[error("the payload of the record at {place} is the object {object:?}, which is not there")]
    Missing {
        /// The record.
        place: String,
        /// The object.
        object: String,
        /// What the object storage said.
        source: BoxError,
    },
    /// The object is not the one that the relay has put there.
    #[error("the object {object:?} is not the payload of the record at {place}: {found}")]
    Changed {
        /// The record.
        place: String,
        /// The object.
        object: String,
        /// In what it differs.
        found: String,
    },
    /// The object storage refuses until an operator has changed something.
    #[error("the object storage refuses the object {object:?}, which is the payload of the record at {place}")]
    Refused {
        /// The record.
        place: String,
        /// The object.
        object: String,
        /// What to change.
        remedy: String,
        /// What the object storage said.
        source: BoxError,
    },
    /// The object storage does not answer, or fails.
    #[error("the object storage does not give the object {object:?}, which is the payload of the record at {place}")]
    Unavailable {
        /// The record.
        place: String,
        /// The object.
        object: String,
        /// What the object storage said.
        source: BoxError,
    },
}

impl ClaimError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    pub(super) fn of(error: Error, place: String, object: String) -> Self {
        match remedy(&error) {
            Some(remedy) => Self::Refused { place, object, remedy: remedy.to_owned(), source: error.into() },
            None => Self::Unavailable { place, object, source: error.into() },
        }
    }

    /// What an operator must do.
    fn remedy(&self) -> String {
        match self {
            Self::Undeclared { .. } => {
                "declare the claim check of the relay (`KafkaSourceConfig::claim_check`, or `KafkaRelay::claim_check` for both)"
                    .to_owned()
            }
            Self::Missing { .. } | Self::Changed { .. } => {
                "bring the object back from a copy; or rebuild the read model from the log, and fill the topics again".to_owned()
            }
            Self::Refused { remedy, .. } => remedy.clone(),
            Self::Unavailable { .. } => "see whether the object storage runs".to_owned(),
        }
    }
}

impl From<ClaimError> for SourceError {
    fn from(error: ClaimError) -> Self {
        if error.is_transient() {
            Self::Unavailable(error.into())
        } else {
            Self::Refused { remedy: error.remedy(), source: error.into() }
        }
    }
}

/// What an operator must do; `None` where waiting may help.
pub(crate) fn remedy(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::NotFound { .. } => "create the bucket, or correct its name",
        Error::PermissionDenied { .. } => {
            "grant the relay to put objects, and readers to get them; see also who owns the bucket"
        }
        Error::Unauthenticated { .. } => "correct the credentials of the object storage",
        Error::InvalidPath { .. } => "declare the object storage in which the relay has put the payloads",
        Error::NotSupported { .. } | Error::NotImplemented { .. } | Error::UnknownConfigurationKey { .. } => {
            "declare another object storage, or correct its settings"
        }
        _ => return None,
    })
}
