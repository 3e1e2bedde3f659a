//! Kafka as a source of events.

pub(crate) mod begin;
mod chain;
pub(crate) mod compacted;
pub(crate) mod feed;
pub(crate) mod group;
pub(crate) mod group_offsets;
mod horizon;
mod mark;
pub(crate) mod member;
mod merge;
pub(crate) mod outbox;
pub(crate) mod postponed;
mod shards;
pub(crate) mod watchdog;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use es_core::{
    EventOrder, EventStore, Position,
    backend::{EventFeed, EventSource, Shard, SourceError, Subscription, Takeover},
};
use rdkafka::consumer::BaseConsumer;
use tokio::runtime::Handle;

use self::{
    compacted::Compacted,
    feed::KafkaFeed,
    outbox::Outbox,
    watchdog::{Measure, Watchdog},
};
use crate::{
    aside,
    client::{Quiet, told, unavailable},
    config::KafkaSourceConfig,
    payloads::Payloads,
    progress::{self, ProgressError},
    record::place_of,
    refusal,
    relay::RelayError,
    topics::{Topics, merged},
};

/// What a relay publishes, as a source for projectors.
///
/// A reader that needs its events [per stream](EventOrder::PerStream) gets a share of the partitions
/// through a consumer group, one shard each. A reader that needs them [per key](EventOrder::PerKey) gets
/// one shard, `merged`, in which all partitions come in the order of the log.
///
/// # Delivery
/// Each shard delivers every event of the categories once after its checkpoint, in position order.
/// Its checkpoints move with the relay's progress also when nothing comes, so that a reader can
/// tell a quiet partition from a late one (R13). A checkpoint of zero reads from the first record:
/// the topics hold the whole log.
///
/// Once a second at most, what its reader has committed is told to the consumer group too, without waiting: tools that show the lag of
/// groups see each reader. These offsets are never read.
///
/// # Panics
/// Its futures panic outside of a tokio runtime with time enabled.
#[derive(Clone)]
pub struct KafkaSource {
    config: Arc<KafkaSourceConfig>,
    log: Option<Arc<dyn EventStore>>,
}

impl fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSource").field("config", &self.config).finish_non_exhaustive()
    }
}

impl KafkaSource {
    /// A source in the topics that `config` names.
    pub fn new(config: KafkaSourceConfig) -> Self {
        Self { config: Arc::new(config), log: None }
    }

    /// Refuses topics that another log than `log` has filled, before any of their events is folded: those of a database that was
    /// lost, or of another service. The source of a service does so by itself; readers elsewhere do not know the log.
    pub fn of_log(self, log: impl EventStore) -> Self {
        Self { log: Some(Arc::new(log)), ..self }
    }

    /// [`SourceError::Unfit`] if the log does not hold what the relay published last.
    async fn check_log(&self) -> Result<(), SourceError> {
        let Some(log) = &self.log else { return Ok(()) };
        let (config, topic) = (self.config.clone(), Topics::new(&self.config.topic_prefix).progress());
        let (place, relay) = (topic.clone(), self.config.relay.clone());
        let read = move || progress::read_last(&config.observer(&relay), &topic, &relay, PATIENCE);
        let read = aside::done(read).await.map_err(SourceError::Unavailable)?;
        let progress = match read {
            Ok(progress) => progress.filter(|progress| progress.position > Position::ZERO),
            Err(ProgressError::Kafka(error)) if refusal::is_unknown_topic(&error) => None,
            Err(ProgressError::Kafka(error)) => return Err(unavailable(error)),
            Err(ProgressError::Undecided(open)) => return Err(SourceError::Unavailable(open.into())),
            Err(ProgressError::Damaged { offset, reason }) => {
                return Err(SourceError::Damaged { place: place_of(&place, 0, offset), reason });
            }
        };
        let Some(progress) = progress else { return Ok(()) };
        let (position, published) = (progress.position, progress.witness());
        let found = progress.found_in(log).await?;
        if found == Some(published) {
            return Ok(());
        }
        let other = RelayError::OtherHistory { position, published, found, progress: place.clone() };
        Err(SourceError::Unfit { place, reason: other.to_string() })
    }
}

/// How long brokers may take to tell how far the relay has come.
const PATIENCE: Duration = Duration::from_secs(30);

#[async_trait]
impl EventSource for KafkaSource {
    async fn open(&self, subscription: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        if subscription.forwards {
            return Err(SourceError::CannotForward);
        }
        let (config, subscription) = (self.config.clone(), subscription.clone());
        let watchdog = Watchdog::new(config.clone(), Measure::Relay, subscription.reader.clone());
        let thread = format!("kafka-{}", subscription.reader);
        let found = Found::by(&config, &subscription).await?;
        compacted::check(&config, &found.topics).await?;
        let mut compacted = Compacted::new(Handle::current(), found.topics);
        self.check_log().await?;
        let payloads = Payloads::new(config.claim_check.as_ref());
        let (outbox, takeover) = match subscription.order {
            EventOrder::PerKey => {
                let outbox = Outbox::new(vec![merged()]);
                feed::spawn(thread, outbox.clone(), move |outbox| {
                    merge::run(&config, &subscription, &payloads, &mut compacted, outbox)
                })?;
                (outbox, Takeover::WhenFree)
            }
            EventOrder::PerStream => {
                let outbox = Outbox::new(found.shards);
                feed::spawn(thread, outbox.clone(), move |outbox| {
                    group::reading::run(&config, &subscription, payloads, compacted, outbox)
                })?;
                (outbox, Takeover::Always)
            }
        };
        Ok(Box::new(KafkaFeed::new(outbox, takeover, watchdog)))
    }
}

/// What there is at the moment.
struct Found {
    /// All shards of a group, so that the reader knows what it waits for.
    shards: Vec<Shard>,
    topics: Vec<String>,
}

impl Found {
    async fn by(config: &Arc<KafkaSourceConfig>, subscription: &Subscription) -> Result<Self, SourceError> {
        let (reads, subscription) = (config.clone(), subscription.clone());
        let asked = aside::done(move || {
            let consumer: BaseConsumer<Quiet> =
                reads.consumer(&subscription).create_with_context(Quiet).map_err(unavailable)?;
            shards::list(&consumer, &Topics::new(&reads.topic_prefix), &subscription.categories, None)
                .map_err(|error| told(&consumer).map_or(error, unavailable))
        });
        let shards = asked.await.map_err(SourceError::Unavailable)??;
        let mut topics: Vec<_> = shards.iter().map(|shard| shard.source.clone()).collect();
        topics.dedup();
        Ok(Self { shards, topics })
    }
}
