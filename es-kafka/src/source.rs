//! Kafka as a source of events.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use es_core::{Categories, EventFeed, EventSource, Order, Shard, SourceError, Subscription, Takeover};
use rdkafka::{
    ClientConfig,
    admin::AdminClient,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
};

use crate::{
    client::{self, Quiet, Settings},
    feed::{self, KafkaFeed, Outbox},
    follower::{told, unavailable},
    group,
    horizon::Horizon,
    merge,
    progress::Progress,
    settings,
    topics::Topics,
    watchdog::Watchdog,
};

/// Where a source reads, and how much it keeps in memory.
#[derive(Debug, Clone)]
pub struct KafkaSourceConfig {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// What the names of all topics start with: that of the relay.
    pub topic_prefix: String,
    /// The name of the relay that fills the topics; its progress tells what is complete.
    pub relay: String,
    /// What the names of the consumer groups start with; the reader's name and the id of its store follow.
    pub group_prefix: String,
    /// The most events of one batch.
    pub batch_events: usize,
    /// A batch is closed when its payloads have reached this many bytes.
    pub batch_bytes: usize,
    /// The most events of one partition that wait for their turn in a merge.
    pub buffer_events: usize,
    /// The most payload that waits in a merge, in bytes, all partitions together.
    pub buffer_bytes: usize,
    /// How often at most a shard without news moves its checkpoint.
    pub advance_every: Duration,
    /// How long a shard may stand still although the relay has published more, before the clients are
    /// taken for dead and new ones are opened.
    pub reopen_after: Duration,
    /// Further properties of librdkafka, for example for TLS and SASL.
    pub settings: Settings,
}

impl KafkaSourceConfig {
    /// Reads what the relay `relay` publishes without a prefix.
    pub fn new(brokers: impl Into<String>, relay: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            topic_prefix: String::new(),
            relay: relay.into(),
            group_prefix: String::new(),
            batch_events: 1_000,
            batch_bytes: 4 * 1024 * 1024,
            buffer_events: 5_000,
            buffer_bytes: 64 * 1024 * 1024,
            advance_every: Duration::from_millis(100),
            reopen_after: Duration::from_secs(30),
            settings: Settings::new(),
        }
    }

    /// Its group is the store's own: a service of another one that has a reader of this name shares nothing with it.
    pub(crate) fn consumer(&self, subscription: &Subscription) -> ClientConfig {
        let Subscription { reader, store, .. } = subscription;
        self.observer(&format!("{reader}-{store}"))
    }

    /// A consumer that joins no group.
    pub(crate) fn observer(&self, name: &str) -> ClientConfig {
        client::consumer(&self.brokers, &format!("{}{name}", self.group_prefix), &self.settings)
    }
}

/// What a relay publishes, as a source for projectors.
///
/// A reader that needs its events [per stream](Order::PerStream) gets a share of the partitions
/// through a consumer group, one shard each. A reader that needs them [per key](Order::PerKey) gets
/// one shard, `merged`, in which all partitions come in the order of the log.
///
/// # Delivery
/// Each shard delivers every event of the categories once after its checkpoint, in position order.
/// Its checkpoints move with the relay's progress also when nothing comes, so that a reader can
/// tell a quiet partition from a late one (R13). A checkpoint of zero reads from the first record:
/// the topics hold the whole log.
///
/// # Panics
/// Its futures panic outside of a tokio runtime with time enabled.
#[derive(Debug, Clone)]
pub struct KafkaSource {
    config: Arc<KafkaSourceConfig>,
}

impl KafkaSource {
    /// A source in the topics that `config` names.
    pub fn new(config: KafkaSourceConfig) -> Self {
        Self { config: Arc::new(config) }
    }
}

#[async_trait]
impl EventSource for KafkaSource {
    async fn open(&self, subscription: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        let (config, subscription) = (self.config.clone(), subscription.clone());
        let watchdog = Watchdog::new(config.clone(), subscription.reader.clone());
        let thread = format!("kafka-{}", subscription.reader);
        let found = Found::by(&config, &subscription).await?;
        found.check(&config).await?;
        let (outbox, takeover) = match subscription.order {
            Order::PerKey => {
                let outbox = Outbox::new(vec![Horizon::shard()]);
                feed::spawn(thread, outbox.clone(), move |outbox| merge::run(&config, &subscription, outbox))?;
                (outbox, Takeover::WhenFree)
            }
            Order::PerStream => {
                let outbox = Outbox::new(found.shards);
                feed::spawn(thread, outbox.clone(), move |outbox| group::run(&config, &subscription, outbox))?;
                (outbox, Takeover::Always)
            }
        };
        Ok(Box::new(KafkaFeed::new(outbox, takeover, watchdog)))
    }
}

/// How long a question to the brokers may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What there is at the moment.
struct Found {
    /// All shards of a group, so that the reader knows what it waits for.
    shards: Vec<Shard>,
    topics: Vec<String>,
}

impl Found {
    async fn by(config: &Arc<KafkaSourceConfig>, subscription: &Subscription) -> Result<Self, SourceError> {
        let (reads, subscription) = (config.clone(), subscription.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer<Quiet> =
                reads.consumer(&subscription).create_with_context(Quiet).map_err(unavailable)?;
            shards(&consumer, &Topics::new(&reads.topic_prefix), &subscription.categories, None)
                .map_err(|error| told(&consumer).map_or(error, unavailable))
        });
        let shards = asked.await.map_err(|error| SourceError::Unavailable(error.into()))??;
        let mut topics: Vec<_> = shards.iter().map(|shard| shard.source().to_owned()).collect();
        topics.dedup();
        Ok(Self { shards, topics })
    }

    /// Refuses topics whose settings would lose events.
    async fn check(&self, config: &KafkaSourceConfig) -> Result<(), SourceError> {
        let admin: AdminClient<Quiet> = client::layered(&config.brokers, &[], &config.settings, &[])
            .create_with_context(Quiet)
            .map_err(unavailable)?;
        match settings::compacted(&admin, &self.topics).await.map_err(unavailable)? {
            Some((place, policy)) => {
                let reason =
                    format!("its cleanup.policy {policy:?} deletes events: set it to \"delete\", with retention.ms -1");
                Err(SourceError::Unfit { place, reason })
            }
            None => Ok(()),
        }
    }
}

/// The shards of a group: one for each partition of the subscribed topics.
pub(crate) fn shards<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topics: &Topics,
    categories: &Categories,
    progress: Option<&Progress>,
) -> Result<Vec<Shard>, SourceError> {
    let metadata = consumer.fetch_metadata(None, PATIENCE).map_err(unavailable)?;
    let subscribed: Vec<_> = metadata.topics().iter().filter(|topic| topics.holds(topic.name(), categories)).collect();
    for topic in &subscribed {
        let known = progress.and_then(|progress| progress.partitions.get(topic.name()));
        let found = topic.partitions().len();
        if let Some(known) = known.filter(|known| usize::try_from(**known) != Ok(found)) {
            return Err(SourceError::Unfit {
                place: topic.name().to_owned(),
                reason: format!(
                    "it has {found} partitions, and had {known} when its first event was published, so that streams lie \
                     in another one than their order needs; the relay's error says what to do"
                ),
            });
        }
    }
    let mut shards: Vec<_> = subscribed
        .iter()
        .flat_map(|topic| topic.partitions().iter().map(|partition| shard(topic.name(), partition.id())))
        .collect();
    shards.sort_unstable();
    Ok(shards)
}

pub(crate) fn shard(topic: &str, partition: i32) -> Shard {
    Shard(format!("{topic}/{partition}"))
}
