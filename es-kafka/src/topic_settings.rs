//! What an application declares of the topics of its events.

use std::{collections::BTreeMap, time::Duration};

/// Settings of the topics of events. Topics that the relay creates get them; those that exist are compared with them.
///
/// Whatever is declared, a topic of events gets `cleanup.policy` `delete` and `unclean.leader.election.enable` `false` if the relay
/// creates it, unless [`others`](Self::others) say otherwise.
///
/// # What a relay does with a topic that is not so
/// | topic | relay | why |
/// |---|---|---|
/// | is compacted | stops | of each stream only the last event would be kept |
/// | deletes events that are not declared to be deleted (`retention.ms`, `retention.bytes`) | stops | later readers and rebuilds miss them |
/// | may be led by a broker that lacks events (`unclean.leader.election.enable`) | stops | after a failover acknowledged events are gone |
/// | is that of the progress, and deletes | stops | without its progress a relay cannot start |
/// | has three copies and takes writes with one left (`min.insync.replicas` 1), or one copy among several brokers | warns | it loses something only if brokers lose their disks |
/// | differs in anything else that is declared, or in the number of its partitions | warns | nothing is lost |
///
/// A relay looks when it starts, when a topic gets its first event, and while it runs
/// ([`check_topics_every`](crate::RelayConfig::check_topics_every)). It changes no topic. `relay status` tells the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicSettings {
    /// How long events are kept (`retention.ms`). `None`: for ever, so that read models can be rebuilt from Kafka. If events may go,
    /// readers that come later stop with [`SourceError::Expired`](es_core::backend::SourceError::Expired), and are rebuilt from the
    /// log.
    pub retention: Option<Duration>,
    /// How many bytes of events a partition keeps (`retention.bytes`). `None`: all.
    pub retention_bytes: Option<u64>,
    /// How many copies must have taken a write (`min.insync.replicas`). `None`: as the cluster has it.
    pub min_insync_replicas: Option<u32>,
    /// The largest batch of records, compressed, that the topic takes (`max.message.bytes`). `None`: as the cluster has it, which is
    /// 1 MiB unless it was changed. The relay's client takes records of that size too.
    pub max_message_bytes: Option<u32>,
    /// Any other settings of topics by their names, for example `compression.type` or `segment.bytes`.
    pub others: BTreeMap<String, String>,
}

impl TopicSettings {
    /// All that is declared, and what the relay sets by itself, by the names that Kafka has for it.
    pub(crate) fn wanted(&self) -> BTreeMap<String, String> {
        let forever = || "-1".to_owned();
        let millis = |kept: Duration| kept.as_millis().min(i64::MAX.unsigned_abs().into()).to_string();
        let mut wanted = BTreeMap::from([
            ("cleanup.policy".to_owned(), "delete".to_owned()),
            ("unclean.leader.election.enable".to_owned(), "false".to_owned()),
            ("retention.ms".to_owned(), self.retention.map_or_else(forever, millis)),
            ("retention.bytes".to_owned(), self.retention_bytes.map_or_else(forever, |bytes| bytes.to_string())),
        ]);
        let numbers =
            [("min.insync.replicas", self.min_insync_replicas), ("max.message.bytes", self.max_message_bytes)];
        wanted.extend(numbers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_string()))));
        wanted.extend(self.others.clone());
        wanted
    }

    /// The declared limit of retention of this name; `None` where nothing is to be deleted.
    pub(crate) fn limit(&self, name: &str) -> Option<i64> {
        self.wanted().get(name).and_then(|value| value.parse().ok()).filter(|limit| *limit >= 0)
    }
}

/// Settings of the topic of the progress: one record a relay survives compaction.
///
/// Small segments: a reader starts at the beginning, and the active segment is never compacted.
pub(crate) fn of_progress() -> BTreeMap<String, String> {
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "16777216"),
        ("min.cleanable.dirty.ratio", "0.1"),
        ("unclean.leader.election.enable", "false"),
    ];
    settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_declared_has_the_names_of_kafka() {
        let kept_for_ever = TopicSettings::default();
        assert_eq!((kept_for_ever.limit("retention.ms"), kept_for_ever.limit("retention.bytes")), (None, None));
        let mut week = TopicSettings { retention: Some(Duration::from_hours(168)), ..kept_for_ever };
        week.max_message_bytes = Some(2_000_000);
        week.others.insert("compression.type".into(), "zstd".into());
        assert_eq!(week.limit("retention.ms"), Some(604_800_000));
        let wanted = week.wanted();
        assert_eq!((&*wanted["max.message.bytes"], &*wanted["compression.type"]), ("2000000", "zstd"));
        assert!(!wanted.contains_key("min.insync.replicas"));
    }
}
