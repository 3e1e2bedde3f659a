//! Produces the records that a consumer forwards.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::Utc;
use es_core::backend::{FailedEvent, Forwarded, Shard, SourceError};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord, Producer},
};

use super::{
    KafkaTopic,
    forwarded::{self, Failure, Story, names},
    record::Record,
    topics,
};
use crate::{
    aside,
    client::{self, Quiet, Settings, unavailable},
    record::place_of,
    refusal,
    source::begin::PATIENCE,
};

/// How long the brokers may take to accept a record.
const DELIVERY: Duration = Duration::from_secs(10);

/// The producer of a topic's consumer, which is made when the first record is forwarded. A clone makes one of its own: its settings may
/// be others.
#[derive(Default)]
pub(crate) struct Forwarder(Arc<Mutex<Option<Open>>>);

#[derive(Clone)]
struct Open {
    producer: FutureProducer<Quiet>,
    /// How many partitions the topics have to which something was forwarded.
    partitions: HashMap<String, i32>,
}

impl Clone for Forwarder {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl std::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarder").finish_non_exhaustive()
    }
}

/// A record to produce.
struct Outgoing {
    topic: String,
    partition: i32,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: OwnedHeaders,
}

impl Forwarder {
    /// Produces the record of `failed` to the next topic, and returns when the brokers have it.
    pub(super) async fn forward(&self, of: &KafkaTopic, failed: FailedEvent<'_>) -> Result<Forwarded, SourceError> {
        let stage = forwarded::stage(&of.topic, &failed.shard.source);
        let delay = of.delays.get(stage).copied().filter(|_| !failed.is_lasting);
        let topic = match delay {
            Some(_) => forwarded::retry_topic(&of.topic, stage + 1),
            None => forwarded::dead_letter_topic(&of.topic),
        };
        let failure = Failure {
            class: failed.class.to_owned(),
            message: failed.cause.to_owned(),
            failed_at: Some(Utc::now()),
            attempts: failed.attempts,
        };
        let place = Place::of(failed.shard, failed.event.position.get());
        let (of, reader, open) = (of.clone(), failed.reader.to_owned(), self.0.clone());
        let asked = aside::done(move || {
            let (producer, partitions) = opened(&open, &of, &topic)?;
            let outgoing = outgoing(&of, &reader, &place?, stage, delay, failure, (topic, partitions))?;
            Ok::<_, SourceError>((producer, outgoing))
        });
        let (producer, outgoing) = asked.await.map_err(SourceError::Unavailable)??;
        let Outgoing { topic, partition, key, value, headers } = outgoing;
        let mut record = FutureRecord::<[u8], [u8]>::to(&topic).partition(partition).headers(headers);
        (record.key, record.payload) = (key.as_deref(), value.as_deref());
        let delivered = match producer.send_result(record) {
            Ok(sent) => sent.await.map_err(|error| SourceError::Unavailable(error.into()))?.map_err(|(error, _)| error),
            Err((error, _)) => Err(error),
        };
        let delivery = delivered.map_err(|error| {
            // The next attempt looks again for what is there, with a producer that has met no error.
            self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
            not_taken(&producer, &topic, error)
        })?;
        let place = place_of(&topic, delivery.partition, delivery.offset);
        Ok(if delay.is_some() { Forwarded::Retry(place) } else { Forwarded::DeadLetter(place) })
    }
}

/// Where the record stands that failed.
struct Place {
    topic: String,
    partition: i32,
    offset: i64,
}

impl Place {
    /// A position is the offset of a record + 1.
    fn of(shard: &Shard, position: u64) -> Result<Self, SourceError> {
        let partition = shard.partition.and_then(|partition| i32::try_from(partition).ok());
        let offset = position.checked_sub(1).and_then(|offset| i64::try_from(offset).ok());
        let place =
            partition.zip(offset).map(|(partition, offset)| Self { topic: shard.source.clone(), partition, offset });
        place.ok_or_else(|| SourceError::Unfit { place: shard.to_string(), reason: "it is no partition".to_owned() })
    }
}

/// The producer, and how many partitions `topic` has.
fn opened(
    open: &Mutex<Option<Open>>,
    of: &KafkaTopic,
    topic: &str,
) -> Result<(FutureProducer<Quiet>, i32), SourceError> {
    let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
    let opened = match &mut *open {
        Some(opened) => opened,
        closed => closed
            .insert(Open { producer: producing(&of.config.brokers, &of.config.settings)?, partitions: HashMap::new() }),
    };
    let partitions = if let Some(partitions) = opened.partitions.get(topic) {
        *partitions
    } else {
        let observer: BaseConsumer<Quiet> =
            of.config.observer("topics").create_with_context(Quiet).map_err(unavailable)?;
        let found = topics::partitions_of(observer.client(), topic)?;
        let found = found.ok_or_else(|| topics::missing(topic, "it was deleted".into()))?;
        opened.partitions.insert(topic.to_owned(), found);
        found
    };
    Ok((opened.producer.clone(), partitions))
}

/// A producer whose records are in Kafka once they are delivered.
pub(crate) fn producing(brokers: &str, settings: &Settings) -> Result<FutureProducer<Quiet>, SourceError> {
    let timeout = DELIVERY.as_millis().to_string();
    let tuning = [
        ("compression.type", "lz4"),
        // The limit is that of the topic: the record was once accepted, and has some more headers now.
        ("message.max.bytes", "104857600"),
        ("message.timeout.ms", timeout.as_str()),
        ("topic.metadata.refresh.interval.ms", "5000"),
    ];
    let invariants = [("enable.idempotence", "true"), ("acks", "all")];
    let client = client::layered(brokers, &tuning, settings, &invariants);
    client.create_with_context(Quiet).map_err(unavailable)
}

/// What is to be produced to `topic`: the record as it was, with what is new of its story.
fn outgoing(
    of: &KafkaTopic,
    reader: &str,
    place: &Place,
    stage: usize,
    delay: Option<Duration>,
    failure: Failure,
    (topic, partitions): (String, i32),
) -> Result<Outgoing, SourceError> {
    let observer = of.config.observer(reader);
    fetch(&observer, place, |record| {
        let (mut story, own) = match Story::of(record) {
            Ok((story, own)) if stage > 0 => (story, copied(&own)),
            // The record is not one that was forwarded.
            _ => (Story::first(record), copied(&record.headers)),
        };
        // As it was, also what cannot be read of it.
        let own = record.unreadable.as_ref().and_then(|unreadable| unreadable.headers.clone()).unwrap_or(own);
        let attempts = story.failure.attempts.saturating_add(failure.attempts);
        story.failure = Failure { attempts, ..failure };
        story.handler = Some(reader.to_owned());
        story.retry_after = delay.map(|delay| Utc::now() + delay);
        story.retries = story.retries.saturating_add(u32::from(delay.is_some()));
        Outgoing {
            partition: story.origin.partition % partitions.max(1),
            topic,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: together(own, &story),
        }
    })
}

/// Headers as they are produced.
pub(crate) fn copied(headers: &[(&str, Option<&[u8]>)]) -> OwnedHeaders {
    let copy = OwnedHeaders::new_with_capacity(headers.len() + names::ALL.len());
    headers.iter().fold(copy, |copy, (key, value)| copy.insert(Header { key, value: *value }))
}

/// The record's own headers, and behind them its story.
pub(crate) fn together(own: OwnedHeaders, story: &Story) -> OwnedHeaders {
    story.headers().iter().fold(own, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}

/// Reads one record again: what a reader gets of it is not all that it is.
fn fetch<T>(observer: &ClientConfig, place: &Place, read: impl FnOnce(&Record<'_>) -> T) -> Result<T, SourceError> {
    let Place { topic, partition, offset } = place;
    let consumer: BaseConsumer<Quiet> = observer.create_with_context(Quiet).map_err(unavailable)?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).map_err(unavailable)?;
    consumer.assign(&list).map_err(unavailable)?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let record = Record::of(&message);
                if record.offset == *offset {
                    return Ok(read(&record));
                }
                return Err(SourceError::Expired { place: place_of(topic, *partition, *offset) });
            }
            Some(Err(error)) if client::is_out_of_range(&error) => {
                return Err(SourceError::Expired { place: place_of(topic, *partition, *offset) });
            }
            Some(Err(error)) => client::check_reading(error, "while reading a record again").map_err(unavailable)?,
            None => {}
        }
    }
    Err(SourceError::Unavailable(format!("{} cannot be read again", place_of(topic, *partition, *offset)).into()))
}

/// What it means that `producer` could not deliver a record. One that may write nowhere waits until its time is over, and says why only on
/// the side.
pub(crate) fn not_taken(producer: &FutureProducer<Quiet>, topic: &str, error: KafkaError) -> SourceError {
    let fatal = producer.client().fatal_error().map(|(code, _)| KafkaError::MessageProduction(code));
    refused(topic, fatal.unwrap_or(error))
}

/// What it means that a record is not accepted.
fn refused(topic: &str, error: KafkaError) -> SourceError {
    let remedy = match refusal::code(&error) {
        Some(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) => {
            format!("grant the client Describe, Read and Write on the topic {topic:?}")
        }
        Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize) => {
            format!("raise `max.message.bytes` of the topic {topic:?}, or skip the event")
        }
        _ => {
            return match unavailable(error) {
                SourceError::Refused { remedy, source } => {
                    SourceError::Refused { remedy: format!("{remedy} (topic {topic:?})"), source }
                }
                other => other,
            };
        }
    };
    SourceError::Refused { remedy, source: error.into() }
}
