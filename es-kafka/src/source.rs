//! Kafka as a source of events.

mod begin;
mod chain;
mod feed;
mod group;
mod horizon;
mod mark;
mod member;
mod merge;
mod outbox;
mod shards;
mod watchdog;

use std::sync::Arc;

use async_trait::async_trait;
use es_core::{
    EventOrder,
    backend::{EventFeed, EventSource, Shard, SourceError, Subscription, Takeover},
};
use rdkafka::{admin::AdminClient, consumer::BaseConsumer};

use self::{feed::KafkaFeed, outbox::Outbox, watchdog::Watchdog};
use crate::{
    client::{self, Quiet, told, unavailable},
    config::KafkaSourceConfig,
    settings,
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
            EventOrder::PerKey => {
                let outbox = Outbox::new(vec![merged()]);
                feed::spawn(thread, outbox.clone(), move |outbox| merge::run(&config, &subscription, outbox))?;
                (outbox, Takeover::WhenFree)
            }
            EventOrder::PerStream => {
                let outbox = Outbox::new(found.shards);
                feed::spawn(thread, outbox.clone(), move |outbox| group::reading::run(&config, &subscription, outbox))?;
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
        let asked = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer<Quiet> =
                reads.consumer(&subscription).create_with_context(Quiet).map_err(unavailable)?;
            shards::list(&consumer, &Topics::new(&reads.topic_prefix), &subscription.categories, None)
                .map_err(|error| told(&consumer).map_or(error, unavailable))
        });
        let shards = asked.await.map_err(|error| SourceError::Unavailable(error.into()))??;
        let mut topics: Vec<_> = shards.iter().map(|shard| shard.source.clone()).collect();
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
