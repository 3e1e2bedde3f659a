//! Why a command has not been executed elsewhere.

use std::time::Duration;

/// Why a command to another service was not executed, or is not known to be: the cause of a [`SendError`](es_core::SendError).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KafkaCommandError {
    /// The owner got it after its deadline, and has not executed it. Transient: sent again, it has another deadline.
    #[error("the deadline of the command had passed when its owner came to it, and it was not executed")]
    Expired,
    /// No answer has come in time: it may have been executed, or be executed until its deadline. Transient.
    #[error("no answer has come within {waited:?}")]
    NoAnswer {
        /// How long the caller has waited.
        waited: Duration,
    },
    /// The topic of the commands is not there: the owner has never run. Transient.
    #[error("there is no topic {topic:?}: the service that owns the aggregate creates it when it starts")]
    NoTopic {
        /// Its name.
        topic: String,
    },
    /// The owner cannot execute it, in its own words. Permanent.
    #[error("the owner of the aggregate cannot execute the command: {reason}")]
    Failed {
        /// Why.
        reason: String,
    },
}

impl KafkaCommandError {
    /// Whether sending the command again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Expired | Self::NoAnswer { .. } | Self::NoTopic { .. } => true,
            Self::Failed { .. } => false,
        }
    }
}
