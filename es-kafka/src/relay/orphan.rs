//! Records in topics of events of which no progress speaks.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientConfig, Offset,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};

use crate::{
    client::{self, Quiet},
    progress,
    topics::Topics,
};

/// A partition of a topic of events that holds a committed one, if there is any.
pub(crate) fn find(consumer: &ClientConfig, topics: &Topics, patience: Duration) -> KafkaResult<Option<(String, i32)>> {
    let mut config = consumer.clone();
    let consumer: BaseConsumer<Quiet> = config.set("enable.partition.eof", "true").create_with_context(Quiet)?;
    let metadata = consumer.fetch_metadata(None, patience)?;
    for topic in metadata.topics().iter().filter(|topic| topics.category(topic.name()).is_some()) {
        for partition in topic.partitions() {
            if holds_events(&consumer, topic.name(), partition.id(), patience)? {
                return Ok(Some((topic.name().to_owned(), partition.id())));
            }
        }
    }
    Ok(None)
}

/// A partition of `topic` that holds a committed record, if there is any among its first `count`.
pub(super) fn find_in(
    consumer: &ClientConfig,
    topic: &str,
    count: i32,
    patience: Duration,
) -> KafkaResult<Option<i32>> {
    let mut config = consumer.clone();
    let consumer: BaseConsumer<Quiet> = config.set("enable.partition.eof", "true").create_with_context(Quiet)?;
    for partition in 0..count {
        if holds_events(&consumer, topic, partition, patience)? {
            return Ok(Some(partition));
        }
    }
    Ok(None)
}

fn holds_events(consumer: &BaseConsumer<Quiet>, topic: &str, partition: i32, patience: Duration) -> KafkaResult<bool> {
    let (low, high) = consumer.fetch_watermarks(topic, partition, patience)?;
    if low >= high {
        return Ok(false);
    }
    // Offsets alone say too little: a first transaction that was aborted leaves records too.
    consumer.assign(&progress::partition(topic, partition, Offset::Beginning)?)?;
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(_)) => return Ok(true),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(false),
            // The deadline bounds the patience.
            Some(Err(error)) => client::check_reading(error, "while looking for events")?,
            None => {}
        }
    }
    Err(KafkaError::OffsetFetch(RDKafkaErrorCode::OperationTimedOut))
}
