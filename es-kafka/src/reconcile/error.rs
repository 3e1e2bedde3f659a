//! Why a comparison did not come to an end.

use es_core::{ReadError, error::BoxError};
use rdkafka::error::KafkaError;

use crate::{claim_check::ClaimError, progress::ProgressError, refusal::Refusal, undecided::Undecided};

/// Why nothing can be said about Kafka and the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconcileError {
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Read(#[from] ReadError),
    /// The brokers refuse this client until an operator has changed something.
    #[error("kafka refuses; {remedy}")]
    Refused {
        /// What to change.
        remedy: String,
        /// What Kafka or its client said.
        source: BoxError,
    },
    /// The brokers do not answer, or what was being read is gone: trying again may help.
    #[error("kafka cannot be read")]
    Unavailable(#[source] BoxError),
    /// A transaction is open, and hides what comes after it: trying again later may help.
    #[error("{}", Undecided { place: place.clone() })]
    Undecided {
        /// Topic, partition and offset.
        place: String,
    },
    /// The relay has begun to fill the topics again: trying again helps.
    #[error("the relay fills the topics again")]
    Refilled,
    /// The relay's progress is not one of this framework.
    #[error("the relay's progress at offset {offset} cannot be read: {reason}")]
    Progress {
        /// Where it is.
        offset: i64,
        /// What is wrong with it.
        reason: String,
    },
    /// The object storage refuses, or does not give, the payload of an event.
    #[error("a payload cannot be read from the object storage")]
    ObjectStorage(#[source] ClaimError),
    /// It was told to stop.
    #[error("it was told to stop")]
    Stopped,
}

impl ReconcileError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Read(error) => error.is_transient(),
            Self::Unavailable(_) | Self::Undecided { .. } | Self::Refilled | Self::Stopped => true,
            Self::ObjectStorage(error) => error.is_transient(),
            Self::Refused { .. } | Self::Progress { .. } => false,
        }
    }
}

impl From<KafkaError> for ReconcileError {
    fn from(error: KafkaError) -> Self {
        match Refusal::of(error) {
            Ok(Refusal { remedy, source }) => Self::Refused { remedy, source: source.into() },
            Err(error) => Self::Unavailable(error.into()),
        }
    }
}

impl From<ProgressError> for ReconcileError {
    fn from(error: ProgressError) -> Self {
        match error {
            ProgressError::Kafka(error) => error.into(),
            ProgressError::Undecided(Undecided { place }) => Self::Undecided { place },
            ProgressError::Damaged { offset, reason } => Self::Progress { offset, reason },
        }
    }
}
