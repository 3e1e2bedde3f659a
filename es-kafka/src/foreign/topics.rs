//! The topics beside a topic: which of them there are, and how they are created.

use std::{
    iter,
    time::{Duration, Instant},
};

use es_core::backend::{BoxError, SourceError};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::{Client, ClientContext},
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode as Code},
};

use super::{
    KafkaTopic,
    forwarded::{dead_letter_topic, retry_topic},
};
use crate::{
    aside,
    client::{self, Quiet, unavailable},
    refusal,
    source::begin::PATIENCE,
    topic_settings::TopicSettings,
};

/// What a forwarded record may have more than the original one.
const MORE_BYTES: u32 = 64 * 1024;

/// The limit of a topic for its records, unless brokers are set otherwise.
const DEFAULT_BYTES: u32 = 1_048_588;

/// A retry topic keeps its records for longer than a consumer should be away.
const RETRIES_KEPT: Duration = Duration::from_hours(30 * 24);

/// How many partitions `topic` has; `None` if there is no such topic.
pub(crate) fn partitions_of<C: ClientContext>(client: &Client<C>, topic: &str) -> Result<Option<i32>, SourceError> {
    let metadata = client.fetch_metadata(Some(topic), PATIENCE).map_err(unavailable)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let Some(found) = found else { return Ok(None) };
    match found.error().map(Code::from) {
        None => Ok(i32::try_from(found.partitions().len()).ok().filter(|partitions| *partitions > 0)),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(None),
        Some(Code::TopicAuthorizationFailed) => Err(SourceError::Refused {
            remedy: format!("grant the client Describe, Read and Write on the topic {topic:?}"),
            source: KafkaError::MetadataFetch(Code::TopicAuthorizationFailed).into(),
        }),
        Some(code) => Err(unavailable(KafkaError::MetadataFetch(code))),
    }
}

/// A topic that must be there is not.
pub(crate) fn missing(topic: &str, source: BoxError) -> SourceError {
    let remedy = format!("create the topic {topic:?}, or grant the client Create on it");
    SourceError::Refused { remedy, source }
}

/// A topic that was to be created is not.
pub(crate) fn uncreated(topic: &str, code: Code) -> SourceError {
    match refusal::Refusal::of(KafkaError::AdminOp(code)) {
        Ok(refusal) => missing(topic, refusal.source.into()),
        Err(error) => SourceError::Unavailable(error.into()),
    }
}

/// The retry topics that are there, also those that are no longer declared: records may wait in them. A client that may not see one that
/// it does not `need` has never written to it.
pub(super) fn retry_topics(
    consumer: &BaseConsumer<Quiet>,
    topic: &str,
    need: usize,
) -> Result<Vec<String>, SourceError> {
    let mut found = Vec::new();
    for nth in 1.. {
        let name = retry_topic(topic, nth);
        match partitions_of(consumer.client(), &name) {
            Ok(Some(_)) => found.push(name),
            Ok(None) => break,
            Err(SourceError::Refused { .. }) if nth > need => break,
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Creates the topics that `of` forwards to, where they are missing.
pub(super) async fn ensure(of: &KafkaTopic, partitions: i32) -> Result<(), SourceError> {
    let retries = (1..=of.delays.len()).map(|nth| (retry_topic(&of.topic, nth), partitions));
    let wanted: Vec<_> = retries.chain(iter::once((dead_letter_topic(&of.topic), 1))).collect();
    let missing = absent(of, wanted).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let config = client::layered(&of.config.brokers, &[], &of.config.settings, &[]);
    let admin: AdminClient<Quiet> = config.create_with_context(Quiet).map_err(unavailable)?;
    let bytes = largest(&admin, &of.topic).await.saturating_add(MORE_BYTES).min(i32::MAX.unsigned_abs());
    for (topic, partitions) in &missing {
        if !of.creates_topics {
            return Err(self::missing(topic, "it is not there, and `create_topics` is off".into()));
        }
        create(&admin, of, topic, *partitions, bytes).await?;
    }
    // Not every broker knows a new topic at once.
    let deadline = Instant::now() + PATIENCE;
    while !absent(of, missing.clone()).await?.is_empty() {
        if Instant::now() > deadline {
            return Err(SourceError::Unavailable("the topics that were created are not known yet".into()));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Those of `topics` that are not there.
async fn absent(of: &KafkaTopic, topics: Vec<(String, i32)>) -> Result<Vec<(String, i32)>, SourceError> {
    let observer = of.config.observer("topics");
    let asked = aside::done(move || {
        let consumer: BaseConsumer<Quiet> = observer.create_with_context(Quiet).map_err(unavailable)?;
        let mut absent = Vec::new();
        for (topic, partitions) in topics {
            if partitions_of(consumer.client(), &topic)?.is_none() {
                absent.push((topic, partitions));
            }
        }
        Ok(absent)
    });
    asked.await.map_err(SourceError::Unavailable)?
}

/// How large records of `topic` may be, as far as that may be seen.
async fn largest(admin: &AdminClient<Quiet>, topic: &str) -> u32 {
    let described = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &AdminOptions::new()).await;
    let settings = described.ok().and_then(|mut found| found.pop()).and_then(Result::ok);
    let value = settings.and_then(|found| found.get("max.message.bytes")?.value.clone());
    value.and_then(|value| value.parse().ok()).unwrap_or(DEFAULT_BYTES)
}

async fn create(
    admin: &AdminClient<Quiet>,
    of: &KafkaTopic,
    topic: &str,
    partitions: i32,
    bytes: u32,
) -> Result<(), SourceError> {
    // A dead letter waits for an operator, however long that takes.
    let retention = if topic == dead_letter_topic(&of.topic) { of.dead_letters_kept } else { Some(RETRIES_KEPT) };
    let settings = TopicSettings { retention, max_message_bytes: Some(bytes), ..TopicSettings::default() }.wanted();
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(of.replication));
    let new = settings.iter().fold(new, |new, (name, value)| new.set(name, value));
    let results = admin.create_topics([&new], &AdminOptions::new()).await.map_err(unavailable)?;
    for result in results {
        match result {
            Ok(_) => tracing::info!(topic, partitions, "topic created"),
            Err((_, Code::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(uncreated(topic, code)),
        }
    }
    Ok(())
}
