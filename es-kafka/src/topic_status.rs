//! How a topic is, and what of its settings loses records.

use es_core::backend::{Finding, counted};
use rdkafka::{
    admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier},
    client::ClientContext,
    error::{KafkaError, KafkaResult},
    metadata::MetadataTopic,
};
use serde::Serialize;

use crate::{config::RelayConfig, topic_settings::TopicSettings};

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
    /// `max.message.bytes`.
    pub max_message_bytes: Option<u64>,
    /// What is declared and what is found instead, by name; without what has a field here.
    #[serde(skip)]
    differing: Vec<(String, String, String)>,
}

/// A setting of a topic by which records are lost, whatever they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss<'a> {
    /// It is compacted: of each key only the last record is kept.
    Compacted { policy: &'a str },
    /// It deletes records sooner than is declared; `None`: they are to be kept for ever.
    Deletes { name: &'static str, limit: i64, declared: Option<i64> },
    /// A broker that lacks records may lead it.
    Unclean,
}

/// What has a judgement of its own.
const JUDGED: [&str; 4] = ["cleanup.policy", "retention.ms", "retention.bytes", "unclean.leader.election.enable"];

impl TopicStatus {
    pub(crate) fn new(topic: impl Into<String>, found: Option<&MetadataTopic>) -> Self {
        let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let partitions = found.map(MetadataTopic::partitions).unwrap_or_default();
        let replication = partitions.iter().map(|partition| partition.replicas().len()).min();
        Self {
            topic: topic.into(),
            partitions: count(partitions.len()),
            first_partitions: None,
            replication: count(replication.unwrap_or(0)),
            retention_ms: None,
            retention_bytes: None,
            cleanup_policy: None,
            min_insync_replicas: None,
            unclean_leader_election: None,
            max_message_bytes: None,
            differing: Vec::new(),
        }
    }

    fn set(&mut self, settings: &ConfigResource, declared: &TopicSettings) {
        self.retention_ms = value(settings, "retention.ms");
        self.retention_bytes = value(settings, "retention.bytes");
        self.cleanup_policy = value(settings, "cleanup.policy");
        self.min_insync_replicas = value(settings, "min.insync.replicas");
        self.unclean_leader_election = value(settings, "unclean.leader.election.enable");
        self.max_message_bytes = value(settings, "max.message.bytes");
        let declared = declared.wanted().into_iter().filter(|(name, _)| !JUDGED.contains(&name.as_str()));
        let differs = |(name, declared): (String, String)| {
            let found: String = value(settings, &name)?;
            (found != declared).then_some((name, declared, found))
        };
        self.differing = declared.filter_map(differs).collect();
    }

    /// What of its settings loses events, or the relay's progress: problems end a relay. What differs from the declaration is a warning.
    pub(crate) fn findings(&self, is_progress: bool, brokers: usize, config: &RelayConfig) -> Vec<Finding> {
        let topic = &self.topic;
        if self.partitions == 0 {
            let found = format!("{topic} does not exist, and events were published to it");
            return vec![Finding::problem("topic", found, "start the relay: its error says what to do")];
        }
        let mut findings = self.problems(is_progress, config);
        findings.extend(self.weaknesses(brokers));
        if is_progress {
            return findings;
        }
        let mut warn = |found: String, advice: String| findings.push(Finding::warning("topic", found, advice));
        for (name, declared, found) in &self.differing {
            warn(
                format!("{topic} has {name} {found}, and {declared} is declared"),
                format!("set its {name} to {declared}, or declare {found}"),
            );
        }
        let is_changed = self.first_partitions.is_some_and(|first| first != self.partitions);
        let declared = config.partitions_of(topic);
        if config.create_topics && !is_changed && self.partitions != declared {
            warn(
                format!("{topic} has {}, and {declared} are declared", partitions(self.partitions)),
                format!("declare {}: a topic in use keeps its partitions", self.partitions),
            );
        }
        if config.replication > 0 && self.replication != config.replication {
            warn(
                format!("{topic} has the replication {}, and {} is declared", self.replication, config.replication),
                format!("reassign its partitions to {} brokers each, or declare what it has", config.replication),
            );
        }
        findings
    }

    /// Those that end a relay.
    pub(crate) fn problems(&self, is_progress: bool, config: &RelayConfig) -> Vec<Finding> {
        let topic = &self.topic;
        let mut findings = Vec::new();
        let mut problem = |found: String, advice: &str| findings.push(Finding::problem("topic", found, advice));
        if let Some(first) = self.first_partitions.filter(|first| *first != self.partitions) {
            problem(
                format!(
                    "{topic} has {}, and had {first} when its first event was published",
                    partitions(self.partitions)
                ),
                "start the relay: its error says what to do",
            );
        }
        if is_progress && self.has_policy("delete") && self.limits().next().is_some() {
            problem(
                format!("{topic} deletes the relay's progress after a while: the relay would not start again"),
                "set its cleanup.policy to \"compact\"",
            );
        }
        for loss in self.losses(config.settings_of(topic)) {
            match loss {
                Loss::Compacted { .. } | Loss::Deletes { .. } if is_progress => {}
                Loss::Compacted { policy } => problem(
                    format!("{topic} has the cleanup.policy {policy:?}, which deletes events"),
                    "set it to \"delete\", with retention.ms -1 and retention.bytes -1; if events are gone, delete the topics \
                     of events and that of the progress, and start the relay",
                ),
                Loss::Deletes { name, limit, declared } => {
                    let instead = declared.map_or_else(|| "for ever".to_owned(), |declared| declared.to_string());
                    problem(
                        format!(
                            "{topic} deletes events after a while ({name} is {limit}, and {instead} is declared): later \
                             rebuilds from Kafka miss them"
                        ),
                        "set it to -1; or, if read models are rebuilt from the log only, declare it in `topics` of the relay",
                    );
                }
                Loss::Unclean => problem(
                    format!("{topic} may be led by a broker that lacks events"),
                    "set its unclean.leader.election.enable to false",
                ),
            }
        }
        findings
    }

    /// What of its settings loses records that are to be kept as `declared`.
    pub(crate) fn losses(&self, declared: &TopicSettings) -> Vec<Loss<'_>> {
        let mut losses = Vec::new();
        if let Some(policy) = self.compaction() {
            losses.push(Loss::Compacted { policy });
        } else {
            let limits = self.limits().map(|(name, limit)| (name, limit, declared.limit(name)));
            let shorter = limits.filter(|(_, limit, declared)| declared.is_none_or(|declared| *limit < declared));
            losses.extend(shorter.map(|(name, limit, declared)| Loss::Deletes { name, limit, declared }));
        }
        losses.extend((self.unclean_leader_election == Some(true)).then_some(Loss::Unclean));
        losses
    }

    /// By what it loses records only if brokers lose their disks.
    pub(crate) fn weaknesses(&self, brokers: usize) -> Vec<Finding> {
        let topic = &self.topic;
        let mut weaknesses = Vec::new();
        let mut warn = |found: String, advice: &str| weaknesses.push(Finding::warning("topic", found, advice));
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
        weaknesses
    }

    /// The policy of a topic that is compacted.
    pub(crate) fn compaction(&self) -> Option<&str> {
        self.cleanup_policy.as_deref().filter(|_| self.has_policy("compact"))
    }

    fn has_policy(&self, wanted: &str) -> bool {
        self.cleanup_policy.as_ref().is_some_and(|policy| policy.split(',').any(|policy| policy.trim() == wanted))
    }

    fn limits(&self) -> impl Iterator<Item = (&'static str, i64)> {
        let limits = [("retention.ms", self.retention_ms), ("retention.bytes", self.retention_bytes)];
        limits.into_iter().filter_map(|(name, limit)| Some((name, limit.filter(|limit| *limit >= 0)?)))
    }
}

/// Adds the settings of `topics`. Returns whether the brokers show them.
pub(crate) async fn describe<'d, C: ClientContext>(
    admin: &AdminClient<C>,
    declared: impl Fn(&str) -> &'d TopicSettings,
    topics: &mut [TopicStatus],
) -> KafkaResult<bool> {
    if topics.is_empty() {
        return Ok(true);
    }
    let names: Vec<_> = topics.iter().map(|topic| topic.topic.clone()).collect();
    let resources: Vec<_> = names.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let described = admin.describe_configs(&resources, &AdminOptions::new()).await?;
    let mut readable = true;
    for (topic, described) in topics.iter_mut().zip(described) {
        match described {
            // So the client tells that they may not be read; and of a topic that the broker has just learnt of.
            Ok(settings) if settings.entries.is_empty() => readable = false,
            Ok(settings) => topic.set(&settings, declared(&topic.topic)),
            Err(code) => return Err(KafkaError::AdminOp(code)),
        }
    }
    Ok(readable)
}

fn value<T: std::str::FromStr>(settings: &ConfigResource, name: &str) -> Option<T> {
    settings.get(name).and_then(|entry| entry.value.as_deref()).and_then(|value| value.parse().ok())
}

fn partitions(count: i32) -> String {
    counted(usize::try_from(count).unwrap_or(0), "partition")
}
