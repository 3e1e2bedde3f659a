//! Kafka as the relay of a service.

use std::sync::Arc;

use async_trait::async_trait;
use es_core::{
    EventStore, Position,
    backend::{EventSource, StateReport},
    service::{self, Engine, PartError},
};
use tokio_util::sync::CancellationToken;

use crate::{
    claim_check::ClaimCheck,
    client::Settings,
    config::{KafkaSourceConfig, RelayConfig},
    relay::Relay,
    source::KafkaSource,
};

/// Carries the log of a service to Kafka, where its readers follow it. Relay and readers are named after the service.
///
/// ```
/// # use es_core::{MemoryStore, Service, testing::account::Histories};
/// use es_kafka::KafkaRelay;
///
/// let service = Service::builder("orders", MemoryStore::new())
/// #   .projection(Histories)
///     .relay(KafkaRelay::new("127.0.0.1:9092").topic_prefix("shop-").relay(|relay| relay.partitions = 6));
/// ```
#[derive(Debug, Clone)]
pub struct KafkaRelay {
    relay: RelayConfig,
    source: KafkaSourceConfig,
}

impl KafkaRelay {
    /// Kafka at `brokers` (`host:port`, separated by commas), which need not be there yet.
    pub fn new(brokers: impl Into<String>) -> Self {
        let brokers = brokers.into();
        Self { relay: RelayConfig::new(&brokers, ""), source: KafkaSourceConfig::new(brokers, "") }
    }

    /// What the names of topics and consumer groups start with (nothing, unless set otherwise). It ends in `.` or `-`, or gets a dot.
    pub fn topic_prefix(mut self, prefix: impl Into<String>) -> Self {
        let prefix = prefix.into();
        (self.relay.topic_prefix, self.source.topic_prefix) = (prefix.clone(), prefix.clone());
        self.source.group_prefix = prefix;
        self
    }

    /// Further properties of librdkafka for relay and readers, for example for TLS and SASL.
    pub fn settings(mut self, settings: Settings) -> Self {
        (self.relay.settings, self.source.settings) = (settings.clone(), settings);
        self
    }

    /// Payloads that are too large for the topics go to object storage, and the readers get them from there.
    pub fn claim_check(mut self, payloads: ClaimCheck) -> Self {
        (self.relay.claim_check, self.source.claim_check) = (Some(payloads.clone()), Some(payloads));
        self
    }

    /// Changes how the log is published. Its [`name`](RelayConfig::name) and [`source`](RelayConfig::source) follow from
    /// the name of the service.
    pub fn relay(mut self, change: impl FnOnce(&mut RelayConfig)) -> Self {
        change(&mut self.relay);
        self
    }

    /// Changes how readers follow. The [`relay`](KafkaSourceConfig::relay) is the service's.
    pub fn source(mut self, change: impl FnOnce(&mut KafkaSourceConfig)) -> Self {
        change(&mut self.source);
        self
    }

    /// How the log of the service of this name is published.
    pub fn config(&self, service: &str) -> RelayConfig {
        RelayConfig { name: service.to_owned(), source: format!("/{service}"), ..self.relay.clone() }
    }
}

impl service::Relay for KafkaRelay {
    fn engine(&self, service: &str, log: Arc<dyn EventStore>) -> Box<dyn Engine> {
        Box::new(Relay::new(log, self.config(service)))
    }

    fn source(&self, service: &str, log: Arc<dyn EventStore>) -> Arc<dyn EventSource> {
        let config = KafkaSourceConfig { relay: service.to_owned(), ..self.source.clone() };
        Arc::new(KafkaSource::new(config).of_log(log))
    }
}

#[async_trait]
impl Engine for Relay {
    async fn run(&self, shutdown: CancellationToken) -> Result<(), PartError> {
        self.run(shutdown).await.map_err(|error| PartError::Permanent(error.into()))
    }

    fn report(&self) -> &StateReport {
        self.report()
    }

    fn position(&self) -> Option<Position> {
        Some(*self.published().borrow()).filter(|published| *published > Position::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use es_core::{
        EventOrder,
        backend::{Categories, Split, Subscription},
    };
    use uuid::Uuid;

    use super::*;

    /// A right on the names that start with `shop.` covers both. Seen to fail where only topics get the dot.
    #[test]
    fn a_consumer_group_has_the_prefix_of_the_topics() {
        let subscription = Subscription {
            reader: "ledger".to_owned(),
            store: Uuid::nil(),
            categories: Categories::All,
            order: EventOrder::PerStream,
            split: Split::NONE,
            forwards: false,
        };
        for (prefix, wanted) in [("shop", "shop."), ("shop.", "shop."), ("shop-", "shop-"), ("", "")] {
            let KafkaRelay { relay, source } = KafkaRelay::new("127.0.0.1:9092").topic_prefix(prefix);
            assert_eq!(relay.names().prefix(), wanted);
            let group = source.consumer(&subscription);
            assert_eq!(group.get("group.id"), Some(&*format!("{wanted}ledger-{}", Uuid::nil())));
        }
    }
}
