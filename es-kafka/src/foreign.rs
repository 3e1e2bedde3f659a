//! Topics that other systems fill, as sources of consumers.

mod begin;
mod declared;
mod elsewhere;
pub(crate) mod forwarded;
pub(crate) mod forwarder;
mod letters;
mod look;
mod member;
pub(crate) mod read;
mod reading;
pub(crate) mod record;
mod settings;
mod structured;
pub(crate) mod topics;

use std::{any::Any, sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use es_core::{
    EventOrder, RecordedEvent,
    backend::{
        Categories, EventFeed, EventSource, FailedEvent, Forwarded, Shard, SourceError, Subscription, Takeover,
        check_category,
    },
};
use rdkafka::{
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    metadata::MetadataTopic,
};

pub use self::declared::{RecordField, TopicStart};
use self::{declared::Declared, forwarder::Forwarder, letters::Letters, look::Look, record::Raw, settings::Said};
use crate::{
    aside,
    client::{self, Quiet, Settings, told, unavailable},
    commands::KafkaCommandTopic,
    config::KafkaSourceConfig,
    dead_letter_topic::DeadLetterTopic,
    payloads::Payloads,
    source::{
        begin::PATIENCE,
        feed::{self, KafkaFeed},
        outbox::Outbox,
        watchdog::{Measure, Watchdog},
    },
    topics::shard,
};

/// A topic that another system fills, as the source of a [`Consumer`](es_core::Consumer).
///
/// The consumers of one name on one store share the partitions through a consumer group. Each partition is a shard with a checkpoint in
/// the store: Kafka's own offsets are told for tools that show the lag, and are never read.
///
/// ```
/// use es_kafka::{KafkaTopic, RecordField, TopicStart};
///
/// // CloudEvents, from the first record on:
/// let shipments = KafkaTopic::new("127.0.0.1:9092", "shipments");
///
/// // Plain JSON such as `{"type": "captured", "paymentId": "P-1", …}`, from now on:
/// let payments = KafkaTopic::new("127.0.0.1:9092", "payments")
///     .named_by(RecordField::json("/type"))
///     .identified_by(RecordField::json("/paymentId"))
///     .tombstones("deleted")
///     .start(TopicStart::End);
/// ```
///
/// # What a message is
/// | | `CloudEvents` 1.0, binary (headers `ce_…`) or structured (`application/cloudevents+json`) | plain JSON |
/// |---|---|---|
/// | name | `type` | [`named_by`](Self::named_by); without it the record cannot be read |
/// | payload | the data, which must be JSON; `{}` if there is none | the value |
/// | id | of `source` and `id` | [`identified_by`](Self::identified_by); otherwise of the record's place |
/// | `recorded_at` | `time` | the record's timestamp |
/// | metadata | `correlationid`, `traceparent`, `tracestate`; `source`, `id` and `subject` in `extra` | `traceparent`, `tracestate` |
///
/// Position and version are the offset + 1. The stream is `<category>-<key>`; a key that is no name of a stream is written as
/// `hex:…`, and a long one as a hash. All records of a partition without a key are in the stream `<category>-partition:<number>`. The
/// schema version is 1, or `schemaversion` if the event has this extension.
///
/// Where a relay of Evenfold has put the data of a `CloudEvent` into [object storage](crate::ClaimCheck), they come from there, if it is
/// declared (`claim_check` in [`source`](Self::source)). Otherwise, and where the object is missing or another one, the record cannot be
/// read.
///
/// A null value without headers of `CloudEvents` is a tombstone: it is passed over, or handed over under a name of its own
/// ([`tombstones`](Self::tombstones)).
///
/// # Failures
/// A record that cannot be read fails as one that cannot be handled: the consumer's failure policy decides. Its dead letter has all
/// of the record, and a retry reads it again, as the topic is declared then.
///
/// With a failure policy that [forwards](es_core::FailurePolicy::forward), the record goes to a topic beside this one, as it was and with
/// headers that tell its story: to `<topic>.retry.1`, then `.2` and so on, where such are declared ([`retry_after`](Self::retry_after)),
/// and at last to `<topic>.dlq`. The consumer reads the retry topics too, in the same group, and handles a record there when its time has
/// come. One that no attempt can mend goes to the dead-letter topic at once. The topics are created when the consumer starts
/// ([`create_topics`](Self::create_topics)), and one whose settings delete what waits in it stops the consumer
/// ([`check_topics_every`](Self::check_topics_every)). All consumers of a topic share them, and pass over what another one is to handle.
///
/// A checkpoint whose offset the topic no longer holds stops the consumer with [`SourceError::Expired`], and one beyond the end of the
/// topic, which was deleted and created again, with [`SourceError::Unfit`]. A topic that was created again and holds as many records by now
/// is not told from the old one: its consumer continues in the middle. Give the consumer another name when its topic is replaced.
///
/// # Panics
/// Its futures panic outside of a tokio runtime with time enabled.
#[derive(Debug, Clone)]
pub struct KafkaTopic {
    config: KafkaSourceConfig,
    topic: String,
    category: Option<String>,
    declared: Declared,
    /// After which time a record is delivered again, for each retry topic.
    delays: Vec<Duration>,
    creates_topics: bool,
    replication: i32,
    /// For how long dead letters are kept; `None`: for ever.
    dead_letters_kept: Option<Duration>,
    check_topics_every: Duration,
    forwarder: Forwarder,
    letters: Letters,
}

/// The longest time after which a record is delivered again: its retry topic keeps it for twice as long.
const LONGEST_DELAY: Duration = Duration::from_hours(15 * 24);

impl KafkaTopic {
    /// `topic` on the brokers at `host:port`, separated by commas.
    pub fn new(brokers: impl Into<String>, topic: impl Into<String>) -> Self {
        Self {
            config: KafkaSourceConfig::new(brokers, ""),
            topic: topic.into(),
            category: None,
            declared: Declared::default(),
            delays: Vec::new(),
            creates_topics: true,
            replication: -1,
            dead_letters_kept: None,
            check_topics_every: Duration::from_mins(1),
            forwarder: Forwarder::default(),
            letters: Letters::default(),
        }
    }

    /// The topic that `source` is, if it is one of Kafka.
    pub fn of(source: &dyn EventSource) -> Option<&Self> {
        let source: &dyn Any = source;
        let commands = || source.downcast_ref().map(KafkaCommandTopic::topic);
        source.downcast_ref().or_else(|| source.downcast_ref().map(|shared: &Arc<Self>| &**shared)).or_else(commands)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.topic
    }

    /// Its dead-letter topic, for a client with the same settings.
    pub fn dead_letters(&self) -> DeadLetterTopic {
        DeadLetterTopic::new(&self.config.brokers, &self.topic).settings(self.config.settings.clone())
    }

    /// The category of the messages, if it is neither the only one that the consumer listens to nor the name of the topic.
    pub fn category(self, category: impl Into<String>) -> Self {
        Self { category: Some(category.into()), ..self }
    }

    /// Where plain JSON has the type of a message. Without it, only `CloudEvents` are read.
    pub fn named_by(mut self, name: RecordField) -> Self {
        self.declared.name = Some(name);
        self
    }

    /// Where plain JSON has what identifies a message within the topic. A producer that repeats a message repeats this too.
    pub fn identified_by(mut self, id: RecordField) -> Self {
        self.declared.id = Some(id);
        self
    }

    /// Hands tombstones over as messages of this name, with the payload `{}`.
    pub fn tombstones(mut self, name: impl Into<String>) -> Self {
        self.declared.tombstone = Some(name.into());
        self
    }

    /// Where a consumer begins that has no checkpoint ([at the first record](TopicStart::First) by default).
    pub fn start(mut self, start: TopicStart) -> Self {
        self.declared.start = start;
        self
    }

    /// After which times a record is handled again that the consumer [forwards](es_core::FailurePolicy::forward): each has a topic of its
    /// own, `<topic>.retry.1` and so on. Of a time the consumer takes 15 days at most. Without any, records go to the dead-letter topic
    /// after the attempts of the failure policy.
    ///
    /// Records that wait in a topic that is no longer declared are still handled.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use es_kafka::KafkaTopic;
    ///
    /// let delays = [Duration::from_secs(10), Duration::from_mins(1), Duration::from_mins(10)];
    /// let payments = KafkaTopic::new("127.0.0.1:9092", "payments").retry_after(delays);
    /// ```
    pub fn retry_after(mut self, delays: impl IntoIterator<Item = Duration>) -> Self {
        self.delays = delays.into_iter().map(|delay| delay.min(LONGEST_DELAY)).collect();
        self
    }

    /// Whether a consumer that forwards creates the topics that it needs, if they are missing (it does by default): retry topics with as
    /// many partitions as the topic has, and a dead-letter topic with one, which is never full of itself and is read in order. Otherwise
    /// it says which are missing.
    pub fn create_topics(self, creates_topics: bool) -> Self {
        Self { creates_topics, ..self }
    }

    /// How many brokers hold each partition of the topics that are created; -1, the default, is that of the cluster.
    pub fn replication(self, brokers: i32) -> Self {
        Self { replication: brokers, ..self }
    }

    /// Lets dead letters go after this time, handled or not (they are kept for ever by default): for topics whose records must not be kept
    /// longer. A dead-letter topic that is created gets it as `retention.ms`; one that keeps its records for a shorter time stops the
    /// consumer.
    pub fn keep_dead_letters(self, time: Duration) -> Self {
        Self { dead_letters_kept: Some(time), ..self }
    }

    /// How often a running consumer looks whether a retry topic was created by another one, which it reads from then on; and, if it
    /// forwards, whether its topics still keep what waits in them, and how many of its records wait in the dead-letter topic, which its
    /// metrics tell (every minute by default, and when it starts).
    pub fn check_topics_every(self, pause: Duration) -> Self {
        Self { check_topics_every: pause, ..self }
    }

    /// Where the next records are no longer in the topic, because its retention has deleted them, the consumer goes on with the first
    /// one that is, and logs an error. It is meant for one start, after an operator has seen what is lost.
    pub fn pass_lost_records(mut self) -> Self {
        self.declared.passes_lost = true;
        self
    }

    /// Further properties of librdkafka, for example for TLS and SASL.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.config.settings = settings;
        self
    }

    /// Changes the sizes of batches, the prefix of the consumer group and the like. Prefix of topics and relay have no meaning here.
    pub fn source(mut self, change: impl FnOnce(&mut KafkaSourceConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Keeps what `CloudEvents` in binary mode have beside what an event has, in its `extra`.
    pub(crate) fn keep_extensions(mut self) -> Self {
        self.declared.keeps_extensions = true;
        self
    }

    /// The topics that are read, first that of the other system, and their shards.
    async fn look(&self, subscription: &Subscription) -> Result<(Vec<String>, Vec<Shard>), SourceError> {
        let (topic, client) = (self.topic.clone(), self.config.consumer(subscription));
        let need = if subscription.forwards { self.delays.len() } else { 0 };
        let asked = aside::done(move || {
            let consumer: BaseConsumer<Quiet> = client.create_with_context(Quiet).map_err(unavailable)?;
            let looked = partitions_of(&consumer, &topic).and_then(|mut shards| {
                let retries = topics::retry_topics(&consumer, &topic, need)?;
                shards.extend(partitions(&consumer, &retries)?);
                Ok((std::iter::once(topic).chain(retries).collect(), shards))
            });
            looked.map_err(|error| told(&consumer).map_or(error, unavailable))
        });
        asked.await.map_err(SourceError::Unavailable)?
    }

    /// The category of the messages for a consumer that listens to `categories`.
    fn category_for(&self, categories: &Categories) -> Result<String, SourceError> {
        let only = match categories {
            Categories::Only(names) if names.len() == 1 => names.first().map(|name| (*name).to_owned()),
            _ => None,
        };
        let category = self.category.clone().or(only).unwrap_or_else(|| declared::category_of(&self.topic));
        let unfit = |reason: String| SourceError::Unfit { place: self.topic.clone(), reason };
        check_category(&category).map_err(|invalid| unfit(format!("declare a category for it: {invalid}")))?;
        if !categories.contains(&category) {
            return Err(unfit(format!(
                "its messages have the category {category:?}, to which the consumer does not listen"
            )));
        }
        Ok(category)
    }
}

#[async_trait]
impl EventSource for KafkaTopic {
    async fn open(&self, subscription: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        if subscription.order == EventOrder::PerKey {
            return Err(SourceError::Order(subscription.order));
        }
        let category = self.category_for(&subscription.categories)?;
        let (mut topics, mut shards) = self.look(subscription).await?;
        let mut said = Said::default();
        if subscription.forwards {
            let partitions = shards.iter().filter(|shard| shard.source == self.topic).count();
            topics::ensure(self, i32::try_from(partitions).unwrap_or(i32::MAX)).await?;
            settings::check(self, &mut said).await?;
            (topics, shards) = self.look(subscription).await?;
        }
        let config = Arc::new(self.config.clone());
        let measure = Measure::Topics(topics.clone());
        let watchdog = Watchdog::new(config, measure, subscription.reader.clone());
        let outbox = Outbox::new(shards.clone());
        let look = Look::new(self, subscription, topics.clone(), said);
        let (topic, subscription) = (self.clone(), subscription.clone());
        let payloads = Payloads::new(self.config.claim_check.as_ref());
        let thread = format!("kafka-{}", subscription.reader);
        feed::spawn(thread, outbox.clone(), move |outbox| {
            let aside = (look, payloads);
            reading::run(&topic, category, (topics, shards), &subscription, aside, outbox)
        })?;
        Ok(Box::new(KafkaFeed::new(outbox, Takeover::Always, watchdog)))
    }

    fn read_again(&self, event: &RecordedEvent) -> Result<RecordedEvent, String> {
        let raw = Raw::decode(&event.data.payload)?;
        let read = self.declared.read(&raw.record(), event.stream.category())?;
        read.ok_or_else(|| "it is a tombstone, and these are passed over: discard it".to_owned())
    }

    async fn forward(&self, failed: FailedEvent<'_>) -> Result<Forwarded, SourceError> {
        self.forwarder.forward(self, failed).await
    }
}

/// The shards of `topics`: one for each partition.
fn partitions<C: ConsumerContext>(consumer: &BaseConsumer<C>, topics: &[String]) -> Result<Vec<Shard>, SourceError> {
    let mut shards = Vec::new();
    for topic in topics {
        shards.extend(partitions_of(consumer, topic)?);
    }
    Ok(shards)
}

fn partitions_of<C: ConsumerContext>(consumer: &BaseConsumer<C>, topic: &str) -> Result<Vec<Shard>, SourceError> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).map_err(unavailable)?;
    metadata.topics().iter().try_for_each(client::check_visible).map_err(unavailable)?;
    let found = metadata.topics().iter().flat_map(MetadataTopic::partitions);
    let mut shards: Vec<_> = found.map(|partition| shard(topic, partition.id())).collect();
    if shards.is_empty() {
        return Err(SourceError::Unavailable(format!("there is no topic {topic:?}").into()));
    }
    shards.sort_unstable();
    Ok(shards)
}

/// A time that Kafka tells in milliseconds.
fn time(millis: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(millis)
}
