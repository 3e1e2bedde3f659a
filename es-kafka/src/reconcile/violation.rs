//! What is wrong with Kafka, compared with the log.

use es_core::{Position, backend::counted};
use serde::Serialize;

use crate::record::place_of;

/// The first difference between Kafka and the log. Its `Display` is a plain sentence; it repeats nothing of what events hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Violation {
    /// An event of the log is not in its topic.
    #[error("position {position} is missing: its place is partition {partition} of {topic}")]
    Missing {
        /// The event.
        position: Position,
        /// Where it should be.
        topic: String,
        /// The partition in which it should be.
        partition: i32,
    },
    /// An event is there for a second time.
    #[error("position {position} is repeated: the record at {} has it again", place_of(.topic, *.partition, *.offset))]
    Repeated {
        /// The event.
        position: Position,
        /// Where it is for the second time.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset there.
        offset: i64,
    },
    /// An event comes later in its partition than one that follows it in the log.
    #[error(
        "position {position} is out of order: the record at {} has it, and position {before} comes before it",
        place_of(.topic, *.partition, *.offset)
    )]
    OutOfOrder {
        /// The event.
        position: Position,
        /// The later event that comes before it.
        before: Position,
        /// Where it is.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset there.
        offset: i64,
    },
    /// A record has another content than the event of the log.
    #[error("position {position} has another {field} in the record at {}", place_of(.topic, *.partition, *.offset))]
    Content {
        /// The event.
        position: Position,
        /// What differs.
        field: String,
        /// Where the record is.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset there.
        offset: i64,
    },
    /// The payload of an event is in object storage, and the object is not there, or another one.
    #[error(
        "the payload of position {position}, whose record is at {}, is the object {object:?}: {found}",
        place_of(.topic, *.partition, *.offset)
    )]
    Object {
        /// The event.
        position: Position,
        /// The object.
        object: String,
        /// What is there instead.
        found: String,
        /// Where the record is.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset there.
        offset: i64,
    },
    /// A record is not an event of this log.
    #[error("the record at {} is foreign: {reason}", place_of(.topic, *.partition, *.offset))]
    Foreign {
        /// Where it is.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset there.
        offset: i64,
        /// How that is known.
        reason: String,
    },
    /// An event is in another partition than the one of its key.
    #[error(
        "position {position} is in the wrong partition: the record at {} has it, and its key belongs in \
         partition {expected} of {expected_topic}",
        place_of(.topic, *.partition, *.offset)
    )]
    Partition {
        /// The event.
        position: Position,
        /// The topic in which it should be.
        expected_topic: String,
        /// The partition in which it should be.
        expected: i32,
        /// Where it is.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset there.
        offset: i64,
    },
    /// A topic does not exist, or has another number of partitions than when its first event was published.
    #[error("{topic} has {}, and had {known} when its first event was published", counted(usize::try_from(*found).unwrap_or(0), "partition"))]
    Partitions {
        /// The topic.
        topic: String,
        /// How many it had.
        known: i32,
        /// How many it has; 0 if it does not exist.
        found: i32,
    },
    /// The beginning of what is to be compared is deleted, for example by retention.
    #[error("partition {partition} of {topic} begins at offset {first}: what was published before that is deleted")]
    Deleted {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The first offset that is left.
        first: i64,
    },
    /// The log does not hold the last event that was published.
    #[error("{published} was published at position {position}, where the log holds {found}")]
    OtherHistory {
        /// How far was published.
        position: Position,
        /// The last published event.
        published: String,
        /// What the log holds there.
        found: String,
    },
    /// The relay's progress tells of another last event of a partition than the one that is there.
    #[error(
        "the relay's progress says that position {told} is the last one in partition {partition} of {topic}, \
         and it is position {found}"
    )]
    Progress {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// What the progress tells.
        told: Position,
        /// What is there.
        found: Position,
    },
}
