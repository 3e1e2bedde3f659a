//! A consumer group: each partition a shard, its reader chosen by Kafka.

pub(super) mod reading;
mod rebalance;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use es_core::backend::{SourceError, Subscription};
use rdkafka::{ClientConfig, TopicPartitionList};

use super::{
    member::{Known, Member, Need},
    outbox::Outbox,
};
use crate::{
    config::KafkaSourceConfig,
    progress::Progress,
    topics::{Topics, shard},
};

type Members = BTreeMap<String, BTreeMap<i32, Member>>;

/// What the rebalance callback and the loop share. Both run on the one thread of the consumer: the
/// callback within `poll`, so that no lock is held across it.
struct Group {
    outbox: Arc<Outbox>,
    topics: Topics,
    subscription: Subscription,
    /// Makes clients beside the consumer.
    observer: ClientConfig,
    members: Mutex<Members>,
    /// The newest that is known, and that all partitions are measured by.
    progress: Mutex<Option<Arc<Progress>>>,
    failure: Mutex<Option<SourceError>>,
}

impl Group {
    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failure(&self) -> MutexGuard<'_, Option<SourceError>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn assignment(&self) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (topic, partitions) in self.members().iter() {
            for partition in partitions.keys() {
                list.add_partition(topic, *partition);
            }
        }
        list
    }

    /// Hands on what was read; `false` when the reader has no room for all of it.
    ///
    /// Events come first, and within one kind the partition that was told something the longest ago:
    /// however slow the reader is, each has its turn. Batches without events have room of their own,
    /// and never keep the loop from reading.
    fn deliver(&self, config: &KafkaSourceConfig) -> bool {
        let progress = self.progress();
        let known = self.known(progress.as_deref());
        let mut members = self.members();
        let mut waiting = Vec::new();
        for (topic, partitions) in members.iter_mut() {
            for (partition, member) in partitions {
                let written = known.of(topic, *partition);
                if let Some(need) = member.need(written, known, config.advance_every) {
                    waiting.push((need, topic, *partition, written, member));
                }
            }
        }
        waiting.sort_by_key(|(need, .., member)| (*need, member.told_at));
        let mut all = true;
        for (need, topic, partition, written, member) in waiting {
            let events = need == Need::Events;
            if self.outbox.has_room(events) {
                self.outbox.push(member.batch(shard(topic, partition), written, known));
            } else if events {
                all = false;
            }
        }
        all
    }

    fn progress(&self) -> Option<Arc<Progress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is known of the relay: the topic of its progress was read to the end before anything else was.
    fn known<'a>(&self, progress: Option<&'a Progress>) -> Known<'a> {
        Known { progress, all: progress.is_none_or(|progress| self.is_known(progress)) }
    }

    fn adopt(&self, progress: Progress) -> Result<(), SourceError> {
        if let Some(known) = self.progress() {
            if known.incarnation != progress.incarnation {
                return Err(SourceError::Unavailable("the relay fills the topics again".into()));
            }
            progress.continues_from(&known)?;
        }
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(progress));
        Ok(())
    }

    /// Compares each partition with what the relay says that it has written.
    fn check(&self) -> Result<(), SourceError> {
        let progress = self.progress();
        let known = self.known(progress.as_deref());
        for (topic, partitions) in self.members().iter_mut() {
            for (partition, member) in partitions {
                member.chain.check(known.of(topic, *partition))?;
            }
        }
        Ok(())
    }

    /// Whether the reader knows all partitions of which `progress` speaks. Before that, no shard may
    /// claim to have reached it: the least of the checkpoints would lie.
    fn is_known(&self, progress: &Progress) -> bool {
        let shards = self.outbox.shards();
        let mut written = progress.offsets.iter();
        written.all(|(topic, partition, _)| {
            !self.topics.holds(topic, &self.subscription.categories)
                || shards.binary_search(&shard(topic, partition)).is_ok()
        })
    }
}

fn find<'a>(members: &'a mut Members, topic: &str, partition: i32) -> Option<&'a mut Member> {
    members.get_mut(topic)?.get_mut(&partition)
}

#[cfg(test)]
mod tests;
