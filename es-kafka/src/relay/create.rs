//! A topic is created with its first event, and its settings are checked before that.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use es_core::backend::Severity;
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};

use super::failure::{Failure, RelayError};
use crate::{
    aside,
    client::{self, Quiet},
    config::RelayConfig,
    topic_settings,
    topic_status::{TopicStatus, describe},
    topics::Topics,
};

/// How long a question to the brokers may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Creates what is missing, checks what is there, and remembers both.
pub(crate) struct TopicMaker {
    admin: Arc<AdminClient<Quiet>>,
    config: Arc<RelayConfig>,
    pub(super) topics: Topics,
    /// With the largest batch of records that each takes, if the brokers tell.
    known: HashMap<String, Option<u64>>,
}

impl TopicMaker {
    pub(crate) fn new(config: &Arc<RelayConfig>) -> KafkaResult<Self> {
        let admin = client::layered(&config.brokers, &[], &config.settings, &[]).create_with_context(Quiet)?;
        Ok(Self { admin: Arc::new(admin), config: config.clone(), topics: config.names(), known: HashMap::new() })
    }

    /// The topic of the relays' progress.
    pub(crate) async fn progress(&self) -> KafkaResult<()> {
        if !self.config.create_topics {
            return Ok(());
        }
        self.ensure(&self.topics.progress(), 1, &topic_settings::of_progress()).await
    }

    /// The topic of the events of `category`.
    pub(crate) async fn events(&mut self, category: &str) -> Result<(), Failure> {
        let topic = self.topics.events(category);
        if self.known.contains_key(&topic) {
            return Ok(());
        }
        if self.config.create_topics {
            let settings = self.config.settings_of(&topic).wanted();
            self.ensure(&topic, self.config.partitions_of(&topic), &settings).await.map_err(Failure::kafka)?;
        }
        self.check(vec![topic]).await
    }

    /// The largest batch of records that the topic of `category` takes, if it is known.
    pub(crate) fn limit(&self, category: &str) -> Option<u64> {
        self.known.get(&self.topics.events(category)).copied().flatten()
    }

    /// Looks again at all topics that were checked.
    pub(crate) async fn check_again(&mut self) -> Result<(), Failure> {
        let topics = self.known.keys().cloned().collect();
        self.check(topics).await
    }

    /// Refuses topics whose settings would lose events, and warns of what else is not as it should be.
    ///
    /// A user that may not see the settings is not refused: a reader finds the gaps by itself.
    pub(crate) async fn check(&mut self, topics: Vec<String>) -> Result<(), Failure> {
        let (brokers, mut found) = self.find(topics).await?;
        let readable =
            describe(&self.admin, |topic| self.config.settings_of(topic), &mut found).await.map_err(Failure::kafka)?;
        if !readable {
            let topics: Vec<_> = found.iter().map(|topic| &topic.topic).collect();
            tracing::warn!(
                ?topics,
                "the brokers tell no settings of these topics, and they are not checked: is DescribeConfigs granted?"
            );
        }
        for topic in &found {
            self.judge(topic, brokers)?;
        }
        self.known.extend(found.into_iter().map(|topic| (topic.topic, topic.max_message_bytes)));
        Ok(())
    }

    /// How many brokers there are, and these topics. One that not every broker knows yet has no partitions.
    async fn find(&self, topics: Vec<String>) -> Result<(usize, Vec<TopicStatus>), Failure> {
        let admin = self.admin.clone();
        let asked = aside::done(move || {
            // Of all topics: to ask for one creates it where brokers do that.
            let metadata = admin.inner().fetch_metadata(None, PATIENCE)?;
            let of = |topic: String| {
                let found = metadata.topics().iter().find(|found| found.name() == topic);
                TopicStatus::new(topic, found)
            };
            Ok((metadata.brokers().len(), topics.into_iter().map(of).collect()))
        });
        let asked: KafkaResult<_> = asked.await.map_err(Failure::Transient)?;
        asked.map_err(Failure::kafka)
    }

    fn judge(&self, topic: &TopicStatus, brokers: usize) -> Result<(), Failure> {
        let is_progress = topic.topic == self.topics.progress();
        let findings = match topic.partitions {
            // Whether it exists is found out when it is written to, and at each start.
            0 => topic.problems(is_progress, &self.config),
            _ => topic.findings(is_progress, brokers, &self.config),
        };
        for finding in findings {
            let remedy = finding.advice.unwrap_or_default();
            if finding.severity < Severity::Problem {
                tracing::warn!(topic = topic.topic, remedy, "{}", finding.found);
            } else if !is_progress && let Some(policy) = topic.compaction() {
                let (topic, policy) = (topic.topic.clone(), policy.to_owned());
                return Err(Failure::Final(RelayError::Compacted { topic, policy }));
            } else {
                let (topic, found) = (topic.topic.clone(), finding.found);
                return Err(Failure::Final(RelayError::TopicSettings { topic, found, remedy }));
            }
        }
        Ok(())
    }

    async fn ensure(&self, topic: &str, partitions: i32, settings: &BTreeMap<String, String>) -> KafkaResult<()> {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(self.config.replication));
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
