//! Kafka between the log and its readers.

use std::sync::Arc;

use es_core::{AggregateStore, EventSource};
use es_kafka::{KafkaSource, KafkaSourceConfig, RelayConfig};
pub use es_kafka::{Relay, RelayError};

use crate::{backend::BackendError, cli::Parts};

/// The name of the relay: of the processes that run it one publishes.
const RELAY: &str = "order-service";

/// Which Kafka, and what the names of its topics start with.
#[derive(Debug, Clone)]
pub struct Kafka {
    brokers: String,
    topic_prefix: String,
}

impl Kafka {
    /// The Kafka that was asked for. The brokers need not be there yet.
    ///
    /// # Errors
    /// [`BackendError::WithoutKafka`], in a program that was built without it.
    pub fn of(parts: &Parts) -> Result<Option<Self>, BackendError> {
        let topic_prefix = parts.topic_prefix.clone();
        Ok(parts.kafka.clone().map(|brokers| Self { brokers, topic_prefix }))
    }

    /// What policies and projectors read.
    pub fn source(&self) -> Arc<dyn EventSource> {
        let (topic_prefix, group_prefix) = (self.topic_prefix.clone(), self.topic_prefix.clone());
        let config = KafkaSourceConfig { topic_prefix, group_prefix, ..KafkaSourceConfig::new(&self.brokers, RELAY) };
        Arc::new(KafkaSource::new(config))
    }

    /// What carries `log` to Kafka.
    pub fn relay(&self, log: Arc<dyn AggregateStore>) -> Relay {
        let topic_prefix = self.topic_prefix.clone();
        Relay::new(log, RelayConfig { topic_prefix, ..RelayConfig::new(&self.brokers, RELAY) })
    }
}
