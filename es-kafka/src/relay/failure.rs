//! How a relay fails: for good, or for a while.

use std::fmt;

use es_core::{
    Position, ReadError, RecordedEvent, StreamId,
    backend::{Witness, counted},
    error::BoxError,
};
use rdkafka::error::KafkaError;
use uuid::Uuid;

use super::{create::TopicMaker, size};
use crate::{
    config::RelayConfig,
    record,
    refusal::{self, Refusal},
    undecided::Undecided,
};

fn or_nothing(found: Option<&Witness>) -> String {
    found.map_or_else(|| "no event".to_owned(), Witness::to_string)
}

/// Why a relay stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The log does not hold what was published from it: it was restored from an older copy, or it
    /// is another log.
    ///
    /// # What to do
    /// If it is the wrong log, name the right one. If this log is to count from now on, delete the topics
    /// of events under the prefix and the one with the progress, start the relay, which publishes the
    /// whole log again, and rebuild the read models that are stopped by the events that are gone.
    #[error(
        "{published} was published at position {position}, where the log holds {}; if this log is to count from now on, \
         delete the topics of events beside {progress}, and {progress}, and start the relay again",
        or_nothing(.found.as_ref())
    )]
    OtherHistory {
        /// How far was published.
        position: Position,
        /// The last published event.
        published: Witness,
        /// What the log holds there.
        found: Option<Witness>,
        /// The topic with the progress.
        progress: String,
    },
    /// An event is larger than its topic, or the relay's client, accepts. Nothing after it can be published before the limit is raised
    /// (R11); what is before it was published.
    ///
    /// # What to do
    /// Raise the limit that it names, or let large payloads go to object storage ([`ClaimCheck`](crate::ClaimCheck)), and start the
    /// relay. Limits of topics are compared with compressed records.
    #[error(
        "the event at position {position} ({stream}, id {event_id}) is too large: as a record of {topic} it takes up to {bytes} bytes, and \
         {limit}; raise that, or let its payload go to object storage (`claim_check`), and start the relay"
    )]
    TooLarge {
        /// Its place in the log.
        position: Position,
        /// Its identity.
        event_id: Uuid,
        /// The stream that it belongs to.
        stream: StreamId,
        /// Its topic.
        topic: String,
        /// What it takes as a record, before it is compressed.
        bytes: usize,
        /// What accepts less.
        limit: SizeLimit,
    },
    /// The object storage refuses the payload of an event. Nothing after it can be published before that is mended; what is before it
    /// was published.
    ///
    /// # What to do
    /// What it says, and start the relay.
    #[error(
        "the object storage refuses the object {object:?}, which is the payload of the event at position {position}; {remedy}, and start \
         the relay"
    )]
    ObjectStorage {
        /// The event's place in the log.
        position: Position,
        /// The object.
        object: String,
        /// What to do.
        remedy: &'static str,
        /// What the object storage said.
        source: BoxError,
    },
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Read(#[source] ReadError),
    /// A partition does not hold what was published to it: the topic was deleted, or the cluster is
    /// another one. Each start refuses until an operator has acted.
    ///
    /// # What to do
    /// If it is the wrong cluster, name the right one. Else delete the topics of events under the prefix and
    /// the one with the progress, and start the relay: it publishes the whole log again, and readers continue
    /// at their positions.
    #[error(
        "partition {partition} of {topic} does not hold what was published to it up to offset {known}: {found}; to \
         publish the whole log again, delete the topics of events beside {progress}, and {progress}, and start the \
         relay: readers continue at their positions"
    )]
    Rewound {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The next offset when it was written last.
        known: i64,
        /// What is there instead.
        found: String,
        /// The topic with the progress.
        progress: String,
    },
    /// A topic has another number of partitions than when its first event was published: the order of
    /// its streams would be lost. Each start refuses until an operator has acted.
    ///
    /// # What to do
    /// To use the new number, delete the topics of events under the prefix and the one with the progress,
    /// set [`RelayConfig::partitions`](crate::RelayConfig::partitions), and start the relay: it publishes the whole log again, and readers
    /// continue at their positions.
    #[error(
        "{topic} has {}, and had {known} when its first event was published; to publish the whole log \
         again with another number, delete the topics of events beside {progress}, and {progress}, and start the \
         relay: readers continue at their positions",
        counted(*found, "partition")
    )]
    Partitions {
        /// The topic.
        topic: String,
        /// How many it had.
        known: i32,
        /// How many it has.
        found: i32,
        /// The topic with the progress.
        progress: String,
    },
    /// A category was declared to go elsewhere than its events went before: a part of them would be missing in its topic. Each start
    /// refuses until an operator has acted.
    ///
    /// # What to do
    /// Declare the former route again ([`RelayConfig::routes`](crate::RelayConfig::routes)). To use the new one, delete the topics of events
    /// under the prefix and the one with the progress, and start the relay: it publishes the whole log again, and readers continue at their
    /// positions.
    #[error(
        "the events of the category {category:?} {}, and are to {} now; declare the former route again, or, to publish the whole log again \
         with the new one, delete the topics of events beside {progress}, and {progress}, and start the relay: readers continue at their \
         positions",
        .was.as_ref().map_or_else(|| "were not published".to_owned(), |topic| format!("were published to {topic}")),
        .now.as_ref().map_or_else(|| "be published no more".to_owned(), |topic| format!("be published to {topic}"))
    )]
    Rerouted {
        /// The category.
        category: String,
        /// The topic that has its events; `None`: they were not published.
        was: Option<String>,
        /// The topic that is declared; `None`: they are not to be published.
        now: Option<String>,
        /// The topic with the progress.
        progress: String,
    },
    /// A topic of events is compacted: of each stream only the last event would be kept.
    ///
    /// # What to do
    /// Set its `cleanup.policy` to `delete` and its `retention.ms` to -1. If it held events already, some are
    /// gone: delete the topics of events under the prefix and the one with the progress, and start the relay.
    #[error(
        "{topic} has the cleanup.policy {policy:?}, which deletes events: set it to \"delete\", with retention.ms -1"
    )]
    Compacted {
        /// The topic.
        topic: String,
        /// Its policy.
        policy: String,
    },
    /// A topic has settings with which it loses events, or the progress, and which
    /// [`RelayConfig::topics`](crate::RelayConfig::topics) does not declare.
    ///
    /// # What to do
    /// What it says, and start the relay. `kafka-configs.sh --alter --topic …` changes settings.
    #[error("{found}; {remedy}")]
    TopicSettings {
        /// The topic.
        topic: String,
        /// What is wrong.
        found: String,
        /// What to do.
        remedy: String,
    },
    /// The topics hold events, but no progress of this relay: it was lost, or another relay
    /// publishes under this prefix. Publishing from the beginning would repeat everything (R10).
    ///
    /// # What to do
    /// If another relay publishes here, use its name, or another prefix. If the progress was lost, delete
    /// the topics of events under the prefix and the one with the progress, and start the relay: it
    /// publishes the whole log again, and readers continue at their positions.
    #[error(
        "partition {partition} of {topic} holds events, but there is no progress of the relay {name:?} in {progress}; \
         unless another relay publishes here, delete the topics of events beside {progress}, and {progress}, and start \
         the relay: it publishes the whole log again, and readers continue at their positions"
    )]
    NoProgress {
        /// The relay.
        name: String,
        /// A topic with events.
        topic: String,
        /// A partition with events.
        partition: i32,
        /// The topic with the progress.
        progress: String,
    },
    /// A topic that is about to get its first event holds records already, which are no events of this log: another application writes
    /// there, or they are what an earlier relay has left. Nothing of the transaction with the event is published (R10).
    ///
    /// # What to do
    /// If another application writes there, declare another route ([`RelayConfig::routes`](crate::RelayConfig::routes)). Else delete the
    /// topic. Then start the relay: it continues with that event.
    #[error(
        "partition {partition} of {topic} holds records already, and its first event is about to be published; declare another route if \
         another application writes there, or else delete {topic}, and start the relay: it continues with that event"
    )]
    Occupied {
        /// The topic.
        topic: String,
        /// A partition with records.
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
    /// The cluster refuses, or a setting is wrong, and both stay so until an operator has acted.
    #[error("kafka refuses; {remedy}")]
    Refused {
        /// What to do.
        remedy: String,
        /// What Kafka or its client said.
        source: KafkaError,
    },
    /// The thread of the producer ended without a word.
    #[error("the producer's thread ended")]
    Crashed,
}

impl RelayError {
    /// Whether starting the relay again may help. It waits for the end of all that is transient itself, so this is `false`
    /// for what [`Relay::run`](crate::Relay::run) returns.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Read(error) if error.is_transient())
    }
}

/// Why a transaction did not happen. After any of these the producer is spent.
#[derive(Debug)]
pub(crate) enum PublishError {
    /// Another producer has taken the transactional id.
    Fenced,
    /// An event is too large, for the client or the brokers. Which one is known when the transaction has but one: the brokers
    /// judge whole batches.
    TooLarge { by_client: bool },
    /// The topics are not as the relay left them: an operator has to act.
    Stopped(Box<RelayError>),
    /// The progress record cannot be read.
    Progress { offset: i64, reason: String },
    /// A transaction hides what was published.
    Undecided(Undecided),
    /// Kafka or its client failed.
    Kafka(KafkaError),
    /// The thread is gone.
    Gone,
}

/// What accepts no larger records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SizeLimit {
    /// `max.message.bytes` of the topic, if the brokers tell it.
    Topic(Option<u64>),
    /// `message.max.bytes` of the relay's client, which is set by [`TopicSettings::max_message_bytes`](crate::TopicSettings) or in
    /// [`RelayConfig::settings`](crate::RelayConfig::settings).
    Client(u64),
}

impl fmt::Display for SizeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(Some(bytes)) => write!(f, "max.message.bytes of the topic is {bytes}"),
            Self::Topic(None) => write!(f, "max.message.bytes of the topic is less"),
            Self::Client(bytes) => write!(f, "message.max.bytes in `settings` is {bytes}"),
        }
    }
}

/// What an error says of an event.
pub(crate) struct Suspect {
    position: Position,
    id: Uuid,
    stream: StreamId,
    topic: String,
    bytes: usize,
    limits: (Option<u64>, u64),
}

impl Suspect {
    pub(crate) fn of(event: &RecordedEvent, maker: &TopicMaker, config: &RelayConfig) -> Self {
        let category = event.stream.category();
        Self {
            position: event.position,
            id: event.id,
            stream: event.stream.clone(),
            topic: config.names().events(category),
            bytes: record::size(event, &config.source, config.claim_check.as_ref()),
            limits: (maker.limit(category), size::client_limit(config)),
        }
    }

    /// The brokers refuse it.
    pub(crate) fn too_large(&self) -> RelayError {
        self.larger_than(SizeLimit::Topic(self.limits.0))
    }

    /// The client refuses it.
    pub(crate) fn too_large_for_client(&self) -> RelayError {
        self.larger_than(SizeLimit::Client(self.limits.1))
    }

    fn larger_than(&self, limit: SizeLimit) -> RelayError {
        let Self { position, id, ref stream, ref topic, bytes, .. } = *self;
        let (stream, topic) = (stream.clone(), topic.clone());
        RelayError::TooLarge { position, event_id: id, stream, topic, bytes, limit }
    }
}

impl From<Refusal> for RelayError {
    fn from(Refusal { remedy, source }: Refusal) -> Self {
        Self::Refused { remedy, source }
    }
}

/// Another relay of the same name and prefix publishes. What this one had not committed was not published.
#[derive(Debug, thiserror::Error)]
#[error("another relay publishes under the name {name:?}")]
pub(crate) struct Fenced {
    pub(crate) name: String,
}

/// The object storage does not take a payload now.
#[derive(Debug, thiserror::Error)]
#[error(
    "the object storage does not take the object {object:?}, which is the payload of the event at position {position}"
)]
pub(crate) struct NotPut {
    pub(crate) position: Position,
    pub(crate) object: String,
    pub(crate) source: BoxError,
}

/// How a session ends before the shutdown.
pub(crate) enum Failure {
    Final(RelayError),
    Transient(BoxError),
    Fenced,
    /// A topic is missing, or there are too few brokers for a new one at this moment.
    Missing(KafkaError),
    /// At once, in smaller steps.
    Again,
}

impl From<KafkaError> for PublishError {
    fn from(error: KafkaError) -> Self {
        Self::Kafka(error)
    }
}

impl Failure {
    pub(crate) fn read(error: ReadError) -> Self {
        if error.is_transient() { Self::Transient(error.into()) } else { Self::Final(RelayError::Read(error)) }
    }

    pub(crate) fn kafka(error: KafkaError) -> Self {
        if refusal::is_unknown_topic(&error) || refusal::lacks_brokers(&error) {
            return Self::Missing(error);
        }
        match Refusal::of(error) {
            Ok(refusal) => Self::Final(refusal.into()),
            Err(error) => Self::Transient(error.into()),
        }
    }

    pub(crate) fn publish(error: PublishError) -> Self {
        match error {
            PublishError::Fenced => Self::Fenced,
            PublishError::Stopped(refusal) => Self::Final(*refusal),
            PublishError::Progress { offset, reason } => Self::Final(RelayError::Progress { offset, reason }),
            PublishError::Gone => Self::Final(RelayError::Crashed),
            PublishError::Kafka(error) => Self::kafka(error),
            PublishError::Undecided(open) => Self::Transient(open.into()),
            PublishError::TooLarge { .. } => Self::Again,
        }
    }
}
