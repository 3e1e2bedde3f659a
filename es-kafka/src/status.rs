//! How a relay and its topics are.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use es_core::{
    EventStore, Position,
    backend::{Finding, counted},
};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier},
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    client::{self, Quiet, told},
    config::RelayConfig,
    progress::{self, Written},
    reconcile::ReconcileError,
    topics::Topics,
};

/// Why the status of a relay is not known: as for a comparison.
pub type StatusError = ReconcileError;

/// How long a question to the brokers may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How far a relay has come, and whether its topics keep what it publishes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RelayStatus {
    /// The relay's name.
    pub relay: String,
    /// What excludes a second relay of this name and prefix.
    pub transactional_id: String,
    /// The position of the last published event.
    pub position: Position,
    /// The end of the log.
    pub head: Position,
    /// How many events are not published yet.
    pub lag_events: u64,
    /// The age of the first of these, in seconds; 0 if there is none.
    pub lag_seconds: f64,
    /// When the relay last wrote its progress.
    pub written_at: Option<DateTime<Utc>>,
    /// Which filling of the topics this is; `None` where the relay has not written anything yet.
    pub incarnation: Option<Uuid>,
    /// The topic of the progress, and those of events.
    pub topics: Vec<TopicStatus>,
    /// What is wrong, and what to do about it.
    pub findings: Vec<Finding>,
}

/// A topic of a relay. What the brokers do not tell this client is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TopicStatus {
    /// Its name.
    pub topic: String,
    /// How many partitions it has; 0 if it does not exist.
    pub partitions: i32,
    /// How many it had when the relay first wrote to it.
    pub first_partitions: Option<i32>,
    /// How many brokers hold each partition.
    pub replication: i32,
    /// `retention.ms`; -1 keeps records for ever.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`; -1 keeps records for ever.
    pub retention_bytes: Option<i64>,
    /// `cleanup.policy`.
    pub cleanup_policy: Option<String>,
    /// `min.insync.replicas`.
    pub min_insync_replicas: Option<i32>,
    /// `unclean.leader.election.enable`.
    pub unclean_leader_election: Option<bool>,
}

/// What the brokers say of all topics.
struct Asked {
    progress: Option<Written>,
    brokers: usize,
    topics: Vec<TopicStatus>,
}

impl RelayStatus {
    /// The status of the relay of this `config` on the log of `store`, whichever process runs it.
    ///
    /// # Errors
    /// [`StatusError`].
    ///
    /// # Panics
    /// Its future panics outside of a tokio runtime with time enabled.
    pub async fn of(store: &dyn EventStore, config: &RelayConfig) -> Result<Self, StatusError> {
        let asked = config.clone();
        let Asked { progress, brokers, mut topics } = tokio::task::spawn_blocking(move || ask(&asked))
            .await
            .map_err(|error| StatusError::Unavailable(error.into()))??;
        let readable = describe(config, &mut topics).await?;
        // The head is read last, so the position is not greater than it.
        let head = store.head().await?;
        let (progress, written_at) = progress.unzip();
        let position = progress.as_ref().map(|progress| progress.position).unwrap_or_default();
        let next = if position < head { store.read_log(position, 1).await?.pop() } else { None };
        let waits = next.map_or(0.0, |event| (Utc::now() - event.recorded_at).as_seconds_f64().max(0.0));
        let names = Topics::new(&config.topic_prefix);
        let mut findings = Vec::new();
        if position > head {
            findings.push(Finding::problem(
                "relay",
                format!(
                    "position {position} is published, and the log ends at {head}: it lost its end, or is another log"
                ),
                "start the relay: its error says what to do",
            ));
        }
        if progress.is_none() {
            findings.push(Finding::warning(
                "relay",
                format!("there is no progress of the relay {:?} in {}", config.name, names.progress()),
                "start the relay; if it has published already, compare its name and the prefix of its topics",
            ));
        }
        for topic in &topics {
            findings.extend(topic.findings(topic.topic == names.progress(), brokers));
        }
        if !readable {
            findings.push(Finding::warning(
                "topics",
                "the brokers do not show this client the settings of the topics",
                "grant it DescribeConfigs on them",
            ));
        }
        Ok(Self {
            relay: config.name.clone(),
            transactional_id: config.transactional_id(),
            position,
            head,
            lag_events: head.get().saturating_sub(position.get()),
            lag_seconds: waits,
            written_at: written_at.flatten(),
            incarnation: progress.map(|progress| progress.incarnation),
            topics,
            findings,
        })
    }
}

fn ask(config: &RelayConfig) -> Result<Asked, StatusError> {
    let names = Topics::new(&config.topic_prefix);
    let client: ClientConfig = client::consumer(&config.brokers, &config.transactional_id(), &config.settings);
    let consumer: BaseConsumer<Quiet> = client.create_with_context(Quiet)?;
    let metadata = match consumer.fetch_metadata(None, PATIENCE) {
        Ok(metadata) => metadata,
        Err(error) => return Err(told(&consumer).unwrap_or(error).into()),
    };
    let mut topics = BTreeMap::new();
    for topic in metadata.topics() {
        if topic.name() == names.progress() || names.category(topic.name()).is_some() {
            let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
            topics.insert(topic.name().to_owned(), (topic.partitions().len(), replicas));
        }
    }
    let progress = if topics.contains_key(&names.progress()) {
        progress::read_last_record(&client, &names.progress(), &config.name, PATIENCE)?
    } else {
        None
    };
    let first = progress.as_ref().map(|(progress, _)| progress.partitions.clone()).unwrap_or_default();
    for topic in first.keys() {
        topics.entry(topic.clone()).or_insert((0, 0));
    }
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let topics = topics.into_iter().map(|(topic, (partitions, replication))| TopicStatus {
        partitions: count(partitions),
        first_partitions: first.get(&topic).copied(),
        replication: count(replication),
        retention_ms: None,
        retention_bytes: None,
        cleanup_policy: None,
        min_insync_replicas: None,
        unclean_leader_election: None,
        topic,
    });
    Ok(Asked { brokers: metadata.brokers().len(), topics: topics.collect(), progress })
}

/// Adds the settings of `topics`. Returns whether the brokers show them.
async fn describe(config: &RelayConfig, topics: &mut [TopicStatus]) -> Result<bool, StatusError> {
    if topics.is_empty() {
        return Ok(true);
    }
    let admin: AdminClient<Quiet> =
        client::layered(&config.brokers, &[], &config.settings, &[]).create_with_context(Quiet)?;
    let names: Vec<_> = topics.iter().map(|topic| topic.topic.clone()).collect();
    let resources: Vec<_> = names.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let described = admin.describe_configs(&resources, &AdminOptions::new()).await?;
    let mut readable = true;
    for (topic, described) in topics.iter_mut().zip(described) {
        match described {
            Ok(settings) => topic.set(&settings),
            Err(RDKafkaErrorCode::UnknownTopicOrPartition) => {}
            Err(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed) => {
                readable = false;
            }
            Err(code) => return Err(KafkaError::AdminOp(code).into()),
        }
    }
    Ok(readable)
}

fn value<T: std::str::FromStr>(settings: &ConfigResource, name: &str) -> Option<T> {
    settings.get(name).and_then(|entry| entry.value.as_deref()).and_then(|value| value.parse().ok())
}

impl TopicStatus {
    fn set(&mut self, settings: &ConfigResource) {
        self.retention_ms = value(settings, "retention.ms");
        self.retention_bytes = value(settings, "retention.bytes");
        self.cleanup_policy = value(settings, "cleanup.policy");
        self.min_insync_replicas = value(settings, "min.insync.replicas");
        self.unclean_leader_election = value(settings, "unclean.leader.election.enable");
    }

    /// What of its settings loses events, or the relay's progress.
    fn findings(&self, is_progress: bool, brokers: usize) -> Vec<Finding> {
        let topic = &self.topic;
        let mut findings = Vec::new();
        let mut problem = |found: String, advice: &str| findings.push(Finding::problem("topic", found, advice));
        if self.partitions == 0 {
            problem(
                format!("{topic} does not exist, and events were published to it"),
                "start the relay: its error says what to do",
            );
            return findings;
        }
        if let Some(first) = self.first_partitions.filter(|first| *first != self.partitions) {
            let found = usize::try_from(self.partitions).unwrap_or(0);
            problem(
                format!(
                    "{topic} has {}, and had {first} when its first event was published",
                    counted(found, "partition")
                ),
                "start the relay: its error says what to do",
            );
        }
        let compacts = |policy: &String| policy.split(',').any(|policy| policy.trim() == "compact");
        let deletes = |policy: &String| policy.split(',').any(|policy| policy.trim() == "delete");
        let policy = self.cleanup_policy.as_ref();
        if is_progress && policy.is_some_and(deletes) && self.retention_is_set() {
            problem(
                format!("{topic} deletes the relay's progress after a while: the relay would not start again"),
                "set its cleanup.policy to \"compact\"",
            );
        }
        if !is_progress && let Some(policy) = policy.filter(|policy| compacts(policy)) {
            problem(
                format!("{topic} has the cleanup.policy {policy:?}, which deletes events"),
                "set it to \"delete\", with retention.ms -1 and retention.bytes -1; if events are gone, delete the topics \
                 of events and that of the progress, and start the relay",
            );
        }
        if self.unclean_leader_election == Some(true) {
            problem(
                format!("{topic} may be led by a broker that lacks events"),
                "set its unclean.leader.election.enable to false",
            );
        }
        let mut warn = |found: String, advice: &str| findings.push(Finding::warning("topic", found, advice));
        if !is_progress && self.retention_is_set() {
            let limits = [("retention.ms", self.retention_ms), ("retention.bytes", self.retention_bytes)];
            for (name, limit) in
                limits.into_iter().filter_map(|(name, limit)| Some((name, limit.filter(|it| *it >= 0)?)))
            {
                warn(
                    format!(
                        "{topic} deletes events after a while ({name} is {limit}): later rebuilds from Kafka miss them"
                    ),
                    "set it to -1",
                );
            }
        }
        if self.replication == 1 && brokers > 1 {
            warn(
                format!("{topic} is on one broker of {brokers}: what that one loses is lost"),
                "raise its replication to 3 where there are so many brokers",
            );
        }
        if self.replication > 2 && self.min_insync_replicas == Some(1) {
            warn(
                format!("{topic} takes writes with one copy left: what that broker loses is lost"),
                "set its min.insync.replicas to 2",
            );
        }
        findings
    }

    fn retention_is_set(&self) -> bool {
        [self.retention_ms, self.retention_bytes].into_iter().flatten().any(|limit| limit >= 0)
    }
}
