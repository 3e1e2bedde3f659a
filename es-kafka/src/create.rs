//! Topics come into being when their first event does.

use std::collections::HashSet;

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};

use crate::{client, client::Quiet, relay::RelayConfig, topics::Topics};

/// Creates what is missing, and remembers what is there.
pub(crate) struct TopicMaker {
    admin: AdminClient<Quiet>,
    topics: Topics,
    partitions: i32,
    replication: i32,
    known: HashSet<String>,
}

impl TopicMaker {
    pub(crate) fn new(config: &RelayConfig) -> KafkaResult<Self> {
        let admin = client::layered(&config.brokers, &[], &config.settings, &[]).create_with_context(Quiet)?;
        Ok(Self {
            admin,
            topics: Topics::new(&config.topic_prefix),
            partitions: config.partitions,
            replication: config.replication,
            known: HashSet::new(),
        })
    }

    /// The topic of the relays' progress: one record a relay survives compaction.
    pub(crate) async fn progress(&mut self) -> KafkaResult<()> {
        let topic = self.topics.progress();
        // Small segments: a reader starts at the beginning, and the active segment is never compacted.
        let settings =
            [("cleanup.policy", "compact"), ("segment.bytes", "16777216"), ("min.cleanable.dirty.ratio", "0.1")];
        self.ensure(topic, 1, &settings).await
    }

    /// The topic of the events of `category`: kept for ever, since read models are rebuilt from it.
    pub(crate) async fn events(&mut self, category: &str) -> KafkaResult<()> {
        let topic = self.topics.events(category);
        if self.known.contains(&topic) {
            return Ok(());
        }
        let settings = [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")];
        self.ensure(topic, self.partitions, &settings).await
    }

    async fn ensure(&mut self, topic: String, partitions: i32, settings: &[(&str, &str)]) -> KafkaResult<()> {
        let mut new = NewTopic::new(&topic, partitions, TopicReplication::Fixed(self.replication));
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let results = self.admin.create_topics([&new], &AdminOptions::new()).await?;
        for result in results {
            match result {
                Ok(_) => tracing::info!(topic, partitions, "topic created"),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(KafkaError::AdminOp(code)),
            }
        }
        self.known.insert(topic);
        Ok(())
    }
}
