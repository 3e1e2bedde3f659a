//! Topics come into being when their first event does.

use std::collections::HashSet;

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};

use super::failure::{Failure, RelayError};
use crate::{
    client::{self, Quiet},
    config::RelayConfig,
    settings,
    topics::Topics,
};

/// Creates what is missing, checks what is there, and remembers both.
pub(crate) struct TopicMaker {
    admin: AdminClient<Quiet>,
    topics: Topics,
    partitions: i32,
    replication: i32,
    create: bool,
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
            create: config.create_topics,
            known: HashSet::new(),
        })
    }

    /// The topic of the relays' progress: one record a relay survives compaction.
    pub(crate) async fn progress(&self) -> KafkaResult<()> {
        if !self.create {
            return Ok(());
        }
        let topic = self.topics.progress();
        // Small segments: a reader starts at the beginning, and the active segment is never compacted.
        let settings =
            [("cleanup.policy", "compact"), ("segment.bytes", "16777216"), ("min.cleanable.dirty.ratio", "0.1")];
        self.ensure(&topic, 1, &settings).await
    }

    /// The topic of the events of `category`: kept for ever, since read models are rebuilt from it.
    pub(crate) async fn events(&mut self, category: &str) -> Result<(), Failure> {
        let topic = self.topics.events(category);
        if self.known.contains(&topic) {
            return Ok(());
        }
        if self.create {
            let settings = [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")];
            self.ensure(&topic, self.partitions, &settings).await.map_err(Failure::kafka)?;
        }
        self.check(vec![topic]).await
    }

    /// Refuses topics whose settings would lose events.
    pub(crate) async fn check(&mut self, topics: Vec<String>) -> Result<(), Failure> {
        if let Some((topic, policy)) = settings::compacted(&self.admin, &topics).await.map_err(Failure::kafka)? {
            return Err(Failure::Final(RelayError::Compacted { topic, policy }));
        }
        self.known.extend(topics);
        Ok(())
    }

    async fn ensure(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) -> KafkaResult<()> {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(self.replication));
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
        Ok(())
    }
}
