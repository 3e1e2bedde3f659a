//! Reads a dead-letter topic, and what was done with it.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use es_core::backend::SourceError;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use super::{
    DeadLetterError, DeadLetterTopic, DeadRecord,
    acts::{self, Done, acts_topic},
    letter::Identity,
};
use crate::{
    aside,
    client::{self, Quiet, told, unavailable},
    foreign::{record::Record, topics::partitions_of},
    record::place_of,
    source::begin::PATIENCE,
};

/// How long nothing may come before reading counts as failed.
const STALL: Duration = Duration::from_secs(30);

/// The records with which nothing was done, in the order in which they came; of copies the last one.
pub(super) async fn open(of: &DeadLetterTopic) -> Result<Vec<DeadRecord>, DeadLetterError> {
    let (config, dead) = (of.reader(), of.name());
    blocking(move || {
        let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet).map_err(unavailable)?;
        let looked = (|| {
            let done = done(&consumer, &dead)?;
            let mut open: BTreeMap<Identity, DeadRecord> = BTreeMap::new();
            each(&consumer, &dead, |record| {
                let letter = DeadRecord::of(record, false);
                let identity = letter.identity();
                let is_done = done.get(&identity).is_some_and(|done| done.concerns(&letter.failed()));
                if is_done {
                    open.remove(&identity);
                } else {
                    open.insert(identity, letter);
                }
            })?;
            let mut open: Vec<_> = open.into_values().collect();
            open.sort_by_key(|letter| (letter.failed_at, letter.partition, letter.offset));
            Ok(open)
        })();
        looked.map_err(|error| told(&consumer).map_or(error, unavailable)).map_err(DeadLetterError::from)
    })
    .await
}

/// The last act on each record.
fn done(consumer: &BaseConsumer<Quiet>, dead: &str) -> Result<HashMap<Identity, Done>, SourceError> {
    let mut done = HashMap::new();
    each(consumer, &acts_topic(dead), |record| {
        let Some(identity) = record.key.and_then(acts::identity) else { return };
        match record.value.and_then(|value| serde_json::from_slice(value).ok()) {
            Some(act) => done.insert(identity, act),
            None => done.remove(&identity),
        };
    })?;
    Ok(done)
}

/// One record, with its value.
pub(super) async fn whole(of: &DeadLetterTopic, partition: i32, offset: i64) -> Result<DeadRecord, DeadLetterError> {
    let (config, dead) = (of.reader(), of.name());
    blocking(move || {
        let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet).map_err(unavailable)?;
        at(&consumer, &dead, partition, offset, |record| DeadRecord::of(record, true))
    })
    .await
}

/// What `read` makes of one record.
pub(super) fn at<T>(
    consumer: &BaseConsumer<Quiet>,
    topic: &str,
    partition: i32,
    offset: i64,
    read: impl FnOnce(&Record<'_>) -> T,
) -> Result<T, DeadLetterError> {
    let gone = || DeadLetterError::Gone { place: place_of(topic, partition, offset) };
    if partitions_of(consumer.client(), topic)?.is_none_or(|partitions| partition >= partitions) {
        return Err(gone());
    }
    let (low, high) = consumer.fetch_watermarks(topic, partition, PATIENCE).map_err(unavailable)?;
    if !(low..high).contains(&offset) {
        return Err(gone());
    }
    let mut read = Some(read);
    let mut found = None;
    one(consumer, (topic, partition), offset, offset + 1, &mut |record| {
        if record.offset == offset
            && let Some(read) = read.take()
        {
            found = Some(read(record));
        }
    })?;
    found.ok_or_else(gone)
}

/// Passes all records of `topic` to `see`, each partition in order, up to where it ends now. There may be no such topic.
fn each(consumer: &BaseConsumer<Quiet>, topic: &str, mut see: impl FnMut(&Record<'_>)) -> Result<(), SourceError> {
    for partition in 0..partitions_of(consumer.client(), topic)?.unwrap_or(0) {
        let (low, high) = consumer.fetch_watermarks(topic, partition, PATIENCE).map_err(unavailable)?;
        if low < high {
            one(consumer, (topic, partition), low, high, &mut see)?;
        }
    }
    Ok(())
}

/// Passes the records of a partition from `first` to before `end` to `see`.
pub(super) fn one(
    consumer: &BaseConsumer<Quiet>,
    (topic, partition): (&str, i32),
    first: i64,
    end: i64,
    see: &mut dyn FnMut(&Record<'_>),
) -> Result<(), SourceError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(first)).map_err(unavailable)?;
    consumer.assign(&list).map_err(unavailable)?;
    let mut heard = Instant::now();
    loop {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                let record = Record::of(&message);
                if record.offset < end {
                    see(&record);
                }
                if record.offset + 1 >= end {
                    return Ok(());
                }
            }
            // What is left are no records: compaction has removed them, or they are markers.
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) if client::is_out_of_range(&error) => {
                return Err(SourceError::Expired { place: place_of(topic, partition, first) });
            }
            Some(Err(error)) => client::check_reading(error, "while reading dead letters").map_err(unavailable)?,
            None if heard.elapsed() > STALL => {
                return Err(SourceError::Unavailable(format!("{topic}/{partition} cannot be read to its end").into()));
            }
            None => {}
        }
    }
}

/// Runs what blocks.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DeadLetterError> + Send + 'static,
) -> Result<T, DeadLetterError> {
    aside::done(work).await.map_err(SourceError::Unavailable)?
}
