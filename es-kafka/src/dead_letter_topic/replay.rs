//! Replays and discards dead records.

use chrono::Utc;
use es_core::{Act, backend::SourceError};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode as Code,
    message::OwnedHeaders,
    producer::{FutureProducer, FutureRecord},
};

use super::{
    DeadLetterError, DeadLetterTopic, DeadRecord, ReplayTo,
    acts::{self, Done, acts_topic},
    scan,
};
use crate::{
    client::{self, Quiet, unavailable},
    foreign::{
        forwarded::{Failure, Story, retry_topic},
        forwarder::{copied, not_taken, producing, together},
        topics::{partitions_of, uncreated},
    },
    record::place_of,
};

/// How many records are produced before that is noted.
const AT_ONCE: usize = 100;

/// A record to produce.
struct Outgoing {
    partition: i32,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: OwnedHeaders,
}

pub(super) async fn replay(
    of: &DeadLetterTopic,
    records: &[DeadRecord],
    to: ReplayTo,
    act: &Act,
) -> Result<(), DeadLetterError> {
    let topic = match to {
        ReplayTo::Handler => retry_topic(&of.topic, 1),
        ReplayTo::Topic => of.topic.clone(),
    };
    if to == ReplayTo::Handler
        && let Some(nameless) = records.iter().find(|record| record.handler.is_none())
    {
        return Err(DeadLetterError::NoHandler { place: place_of(&of.name(), nameless.partition, nameless.offset) });
    }
    if records.is_empty() {
        return Ok(());
    }
    let producer = producing(&of.brokers, &of.settings)?;
    ensure_acts(of).await?;
    let word = match to {
        ReplayTo::Handler => "handler",
        ReplayTo::Topic => "topic",
    };
    for part in records.chunks(AT_ONCE) {
        let outgoing = read(of, part, to, topic.clone()).await?;
        let mut sent = Vec::with_capacity(outgoing.len());
        for Outgoing { partition, key, value, headers } in &outgoing {
            let mut record = FutureRecord::<[u8], [u8]>::to(&topic).partition(*partition).headers(headers.clone());
            (record.key, record.payload) = (key.as_deref(), value.as_deref());
            sent.push(producer.send_result(record).map_err(|(error, _)| error));
        }
        // One that is refused keeps none of the others from being noted: they would be replayed again.
        let (mut arrived, mut failed) = (Vec::with_capacity(part.len()), None);
        for (record, sent) in part.iter().zip(sent) {
            let delivered = match sent {
                Ok(delivery) => match delivery.await {
                    Ok(delivered) => delivered.map_err(|(error, _)| not_taken(&producer, &topic, error)),
                    Err(error) => Err(SourceError::Unavailable(error.into())),
                },
                Err(error) => Err(not_taken(&producer, &topic, error)),
            };
            match delivered {
                Ok(_) => arrived.push(record.clone()),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        note(of, &producer, &arrived, "replay", Some(word), act).await?;
        if let Some(error) = failed {
            return Err(error.into());
        }
    }
    Ok(())
}

pub(super) async fn discard(of: &DeadLetterTopic, records: &[DeadRecord], act: &Act) -> Result<(), DeadLetterError> {
    if records.is_empty() {
        return Ok(());
    }
    let producer = producing(&of.brokers, &of.settings)?;
    ensure_acts(of).await?;
    note(of, &producer, records, "discard", None, act).await
}

/// Reads `records` again, with all that they hold, as they are to be produced to `topic`.
async fn read(
    of: &DeadLetterTopic,
    records: &[DeadRecord],
    to: ReplayTo,
    topic: String,
) -> Result<Vec<Outgoing>, DeadLetterError> {
    let (config, dead) = (of.reader(), of.name());
    let places: Vec<_> = records.iter().map(|record| (record.partition, record.offset)).collect();
    scan::blocking(move || {
        let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet).map_err(unavailable)?;
        let partitions = partitions_of(consumer.client(), &topic)?;
        let partitions = partitions.ok_or(DeadLetterError::NoTopic { topic })?;
        let mut outgoing = Vec::with_capacity(places.len());
        for (partition, offset) in places {
            outgoing.push(scan::at(&consumer, &dead, partition, offset, |record| {
                if record.unreadable.is_some() && to == ReplayTo::Topic {
                    return Err(DeadLetterError::HeaderName { place: place_of(&dead, partition, offset) });
                }
                let (story, own) = Story::of(record).unwrap_or_else(|_| (Story::first(record), record.headers.clone()));
                let partition = story.origin.partition % partitions;
                let headers = match to {
                    // It begins anew.
                    ReplayTo::Handler => {
                        let failure = Failure { attempts: 0, ..story.failure };
                        together(copied(&own), &Story { failure, retries: 1, retry_after: Some(Utc::now()), ..story })
                    }
                    ReplayTo::Topic => copied(&own),
                };
                let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
                Ok(Outgoing { partition, key, value, headers })
            })??);
        }
        Ok(outgoing)
    })
    .await
}

/// Notes what was done with `records`.
async fn note(
    of: &DeadLetterTopic,
    producer: &FutureProducer<Quiet>,
    records: &[DeadRecord],
    what: &str,
    to: Option<&str>,
    act: &Act,
) -> Result<(), DeadLetterError> {
    let topic = acts_topic(&of.name());
    let mut sent = Vec::with_capacity(records.len());
    for record in records {
        let key = acts::key(&record.identity());
        let value = serde_json::to_vec(&Done::new(record, what, to, act)).expect("texts and numbers");
        let record = FutureRecord::to(&topic).key(&key).payload(&value);
        sent.push(producer.send_result(record).map_err(|(error, _)| not_taken(producer, &topic, error))?);
    }
    for delivery in sent {
        let delivered = delivery.await.map_err(|error| SourceError::Unavailable(error.into()))?;
        delivered.map_err(|(error, _)| not_taken(producer, &topic, error))?;
    }
    Ok(())
}

/// Creates the topic of the acts if it is missing.
async fn ensure_acts(of: &DeadLetterTopic) -> Result<(), DeadLetterError> {
    let (config, topic) = (of.reader(), acts_topic(&of.name()));
    let asked = topic.clone();
    let is_there = scan::blocking(move || {
        let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet).map_err(unavailable)?;
        Ok(partitions_of(consumer.client(), &asked)?.is_some())
    });
    if is_there.await? {
        return Ok(());
    }
    let config = client::layered(&of.brokers, &[], &of.settings, &[]);
    let admin: AdminClient<Quiet> = config.create_with_context(Quiet).map_err(unavailable)?;
    let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(-1))
        .set("cleanup.policy", "compact")
        .set("segment.bytes", "16777216")
        .set("min.cleanable.dirty.ratio", "0.1");
    for created in admin.create_topics([&new], &AdminOptions::new()).await.map_err(unavailable)? {
        match created {
            Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(uncreated(&topic, code).into()),
        }
    }
    Ok(())
}
