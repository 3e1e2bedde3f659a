//! Whether the topics still hold what the progress says was published to them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use es_core::Position;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};

use super::failure::{PublishError, RelayError};
use crate::{
    client::{self, Quiet},
    progress::Progress,
    record::{Heading, place_of},
    undecided::Undecided,
};

/// How long a topic may be unknown to the broker that is asked.
const NEW: Duration = Duration::from_secs(5);

/// Reads back the last event of every partition. A topic that was deleted and created again does not
/// hold it, however many records of aborted transactions have moved its end; so the answer is the same
/// at every start, until an operator acts.
///
/// `None` when all are there. `progress_topic` is what a refusal tells the operator to delete.
pub(crate) fn refusal(
    config: &ClientConfig,
    progress: &Progress,
    progress_topic: &str,
    patience: Duration,
) -> Result<Option<RelayError>, PublishError> {
    let mut config = config.clone();
    let consumer = config.set("enable.partition.eof", "true").create_with_context(Quiet)?;
    let uncommitted = config.clone().set("isolation.level", "read_uncommitted").create_with_context(Quiet)?;
    let verify = Verify { consumer, uncommitted, progress, progress_topic, patience };
    for (topic, known) in &progress.partitions {
        let found = verify.partitions(topic)?;
        if found == 0 {
            return Ok(Some(verify.rewound(topic, 0, "the topic does not exist".to_owned())));
        }
        if usize::try_from(*known) != Ok(found) {
            return Ok(Some(RelayError::Partitions {
                topic: topic.clone(),
                known: *known,
                found: i32::try_from(found).unwrap_or(i32::MAX),
                progress: progress_topic.to_owned(),
            }));
        }
        if let Some(refusal) = verify.topic(topic)? {
            return Ok(Some(refusal));
        }
    }
    Ok(None)
}

struct Verify<'a> {
    consumer: BaseConsumer<Quiet>,
    /// For where partitions end: another writer's open transaction hides what was committed after it.
    uncommitted: BaseConsumer<Quiet>,
    progress: &'a Progress,
    progress_topic: &'a str,
    patience: Duration,
}

impl Verify<'_> {
    fn rewound(&self, topic: &str, partition: i32, found: String) -> RelayError {
        let known = self.progress.offsets.next(topic, partition);
        RelayError::Rewound { topic: topic.to_owned(), partition, known, found, progress: self.progress_topic.into() }
    }

    /// How many partitions a topic has, 0 if it does not exist. Not every broker knows a new topic at once.
    fn partitions(&self, topic: &str) -> KafkaResult<usize> {
        let deadline = Instant::now() + NEW.min(self.patience);
        loop {
            let metadata = self.consumer.fetch_metadata(Some(topic), self.patience)?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            let found = found.map_or(0, |found| found.partitions().len());
            if found > 0 || Instant::now() >= deadline {
                return Ok(found);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// All partitions of one topic at once: the end of a partition is told by its number alone.
    fn topic(&self, topic: &str) -> Result<Option<RelayError>, PublishError> {
        let (mut places, mut wanted) = (TopicPartitionList::new(), HashMap::new());
        for (_, partition, next) in self.progress.offsets.iter().filter(|(name, ..)| *name == topic) {
            let (low, high) = self.uncommitted.fetch_watermarks(topic, partition, self.patience)?;
            if high < next {
                return Ok(Some(self.rewound(topic, partition, format!("it ends at offset {high}"))));
            }
            if low >= next {
                // A topic that was created again begins at 0: retention has deleted these.
                tracing::warn!(topic, partition, low, "the published events of this partition are deleted");
                continue;
            }
            places.add_partition_offset(topic, partition, Offset::Offset(next - 1))?;
            wanted.insert(partition, (next - 1, self.progress.last(topic, partition)));
        }
        self.consumer.assign(&places)?;
        let deadline = Instant::now() + self.patience;
        while !wanted.is_empty() {
            if Instant::now() >= deadline {
                return Err(KafkaError::OffsetFetch(RDKafkaErrorCode::OperationTimedOut).into());
            }
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(record)) => {
                    let Some((offset, last)) = wanted.remove(&record.partition()) else { continue };
                    if let Some(found) = difference(&record, offset, last) {
                        return Ok(Some(self.rewound(topic, record.partition(), found)));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    if let Some((offset, _)) = wanted.get(&partition) {
                        let (_, decided) = self.consumer.fetch_watermarks(topic, partition, self.patience)?;
                        if decided <= *offset {
                            // Nothing can be said before that transaction is decided.
                            let place = place_of(topic, partition, decided);
                            return Err(PublishError::Undecided(Undecided { place }));
                        }
                        return Ok(Some(self.rewound(topic, partition, format!("offset {offset} holds no event"))));
                    }
                }
                // The deadline bounds the patience.
                Some(Err(error)) => client::check_reading(error, "while reading back what was published")?,
                None => {}
            }
        }
        Ok(None)
    }
}

fn difference(record: &impl Message, offset: i64, last: Position) -> Option<String> {
    if record.offset() != offset {
        return Some(format!("offset {offset} holds no event"));
    }
    match Heading::of(record) {
        Ok(heading) if heading.position == last => None,
        Ok(heading) => Some(format!("offset {offset} holds the event at position {}, not {last}", heading.position)),
        Err(reason) => Some(format!("offset {offset} holds no event of the relay: {reason}")),
    }
}
