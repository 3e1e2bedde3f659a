//! How a relay fails: for good, or for a while.

use es_core::{Position, ReadError, RecordedEvent, StreamId, Witness, error::BoxError};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use uuid::Uuid;

use crate::{publisher::PublishError, relay::RelayConfig};

fn or_nothing(found: Option<&Witness>) -> String {
    found.map_or_else(|| "no event".to_owned(), Witness::to_string)
}

/// Why a relay stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// Another relay of this name has taken over. Nothing that this one did since was published.
    #[error("another relay took the name {name:?}")]
    Fenced {
        /// The name of both.
        name: String,
    },
    /// The log does not hold what was published from it: it was restored from an older copy, or it
    /// is another log.
    #[error("{published} was published at position {position}, where the log holds {}", or_nothing(.found.as_ref()))]
    OtherHistory {
        /// How far was published.
        position: Position,
        /// The last published event.
        published: Witness,
        /// What the log holds there.
        found: Option<Witness>,
    },
    /// An event is larger than the broker accepts; nothing behind it can be published before
    /// `max.message.bytes` of its topic allows it (R11).
    #[error(
        "the event at position {position} ({stream}, id {event_id}, payload of {bytes} bytes) is too large for its topic"
    )]
    TooLarge {
        /// Its place in the log.
        position: Position,
        /// Its identity.
        event_id: Uuid,
        /// The stream that it belongs to.
        stream: StreamId,
        /// The size of its payload.
        bytes: usize,
    },
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Read(#[source] ReadError),
    /// A partition has lost records: the topic was deleted, or the cluster is another one.
    #[error("partition {partition} of {topic} was written up to offset {known}, now it is at {found}")]
    Rewound {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The next offset when it was written last.
        known: i64,
        /// The offset that the next record got.
        found: i64,
    },
    /// The topics hold events, but no progress of this relay: it was lost, or another relay
    /// publishes under this prefix. Publishing from the beginning would repeat everything (R10).
    #[error("partition {partition} of {topic} holds events, but there is no progress of the relay {name:?}")]
    NoProgress {
        /// The relay.
        name: String,
        /// A topic with events.
        topic: String,
        /// A partition with events.
        partition: i32,
    },
    /// The progress record is not one of this framework.
    #[error("the relay's progress at offset {offset} cannot be read: {reason}")]
    Progress {
        /// Where it is.
        offset: i64,
        /// What is wrong with it.
        reason: String,
    },
    /// The cluster refuses, or the configuration is wrong; trying again is in vain.
    #[error("kafka refuses")]
    Refused(#[source] KafkaError),
    /// The thread of the producer ended without a word.
    #[error("the producer's thread ended")]
    Crashed,
}

/// What an error says of an event.
pub(crate) struct Suspect {
    position: Position,
    id: Uuid,
    stream: StreamId,
    bytes: usize,
}

impl Suspect {
    pub(crate) fn of(event: &RecordedEvent) -> Self {
        let bytes = event.data.payload.len();
        Self { position: event.position, id: event.id, stream: event.stream.clone(), bytes }
    }

    pub(crate) fn too_large(&self) -> RelayError {
        let Self { position, id, ref stream, bytes } = *self;
        RelayError::TooLarge { position, event_id: id, stream: stream.clone(), bytes }
    }
}

/// How a session ends before the shutdown.
pub(crate) enum Failure {
    Final(RelayError),
    Transient(BoxError),
    /// At once, in smaller steps.
    Again,
}

impl Failure {
    pub(crate) fn read(error: ReadError) -> Self {
        match error {
            ReadError::Store(_) => Self::Transient(error.into()),
            error => Self::Final(RelayError::Read(error)),
        }
    }

    pub(crate) fn kafka(error: KafkaError) -> Self {
        use RDKafkaErrorCode as Code;
        let code = match &error {
            KafkaError::AdminOp(code) => Some(*code),
            error => error.rdkafka_error_code(),
        };
        match code {
            Some(
                Code::TopicAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::InvalidReplicationFactor
                | Code::InvalidPartitions
                | Code::PolicyViolation,
            ) => Self::Final(RelayError::Refused(error)),
            _ => Self::Transient(error.into()),
        }
    }

    pub(crate) fn publish(error: PublishError, config: &RelayConfig) -> Self {
        match error {
            PublishError::Fenced => Self::Final(RelayError::Fenced { name: config.name.clone() }),
            PublishError::Rewound { topic, partition, known, found } => {
                Self::Final(RelayError::Rewound { topic, partition, known, found })
            }
            PublishError::Orphaned { topic, partition } => {
                Self::Final(RelayError::NoProgress { name: config.name.clone(), topic, partition })
            }
            PublishError::Progress { offset, reason } => Self::Final(RelayError::Progress { offset, reason }),
            PublishError::Refused(error) => Self::Final(RelayError::Refused(error)),
            PublishError::Gone => Self::Final(RelayError::Crashed),
            PublishError::Transient(error) => Self::Transient(error.into()),
            PublishError::TooLarge { .. } => Self::Again,
        }
    }
}
