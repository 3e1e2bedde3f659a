//! A consumer group: each partition a shard, its reader chosen by Kafka.

pub(crate) mod pressure;
mod published;
pub(super) mod reading;
mod rebalance;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use es_core::backend::{Batch, Checkpoint, Shard, SourceError};
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{member::Need, outbox::Outbox};
use crate::client::check;

/// What a group reads: which partitions there are, and how one is read.
pub(crate) trait Partitions: Send + Sync + 'static {
    /// A partition that is read.
    type Member: Told + Send + 'static;

    /// Whether a topic that the group has subscribed to is one of its own.
    fn reads(&self, _topic: &str) -> bool {
        true
    }

    /// All shards.
    fn list<C: ConsumerContext>(&self, consumer: &BaseConsumer<C>) -> Result<Vec<Shard>, SourceError>;

    /// The partition as the checkpoint knows it, and the offset to read it from.
    fn start<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        place: (&str, i32),
        checkpoint: &Checkpoint,
    ) -> Result<(Self::Member, i64), SourceError>;
}

/// A partition of which its reader is told.
pub(crate) trait Told {
    /// When it was told something last.
    fn told_at(&self) -> Option<Instant>;

    /// Whether it is not to be read for now, whatever its reader has room for.
    fn is_withheld(&self) -> bool {
        false
    }
}

type Members<M> = BTreeMap<String, BTreeMap<i32, M>>;

/// What the rebalance callback and the loop share. Both run on the one thread of the consumer: the
/// callback within `poll`, so that no lock is held across it.
pub(crate) struct Group<P: Partitions> {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) of: P,
    members: Mutex<Members<P::Member>>,
    failure: Mutex<Option<SourceError>>,
}

impl<P: Partitions> Group<P> {
    pub(crate) fn new(outbox: Arc<Outbox>, of: P) -> Self {
        Self { outbox, of, members: Mutex::default(), failure: Mutex::default() }
    }

    pub(crate) fn members(&self) -> MutexGuard<'_, Members<P::Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Most errors of a poll are news about connections, which the client mends itself.
    pub(crate) fn heed(&self, error: KafkaError) -> Result<(), SourceError> {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.outbox.lost_brokers();
        }
        check(error)
    }

    /// Why a rebalance failed.
    fn failure(&self) -> MutexGuard<'_, Option<SourceError>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if a rebalance has.
    pub(crate) fn is_sound(&self) -> Result<(), SourceError> {
        self.failure().take().map_or(Ok(()), Err)
    }

    /// Hands on what was read; `false` when the reader has no room for all of it.
    ///
    /// Events come first, and within one kind the partition that was told something the longest ago:
    /// however slow the reader is, each has its turn. Batches without events have room of their own,
    /// and never keep the loop from reading.
    pub(crate) fn hand_on(
        &self,
        need: impl Fn(&str, i32, &P::Member) -> Option<Need>,
        batch: impl Fn(&str, i32, &mut P::Member) -> Batch,
    ) -> bool {
        let mut members = self.members();
        let mut waiting = Vec::new();
        for (topic, partitions) in members.iter_mut() {
            for (partition, member) in partitions {
                if let Some(need) = need(topic, *partition, member) {
                    waiting.push((need, topic, *partition, member));
                }
            }
        }
        waiting.sort_by_key(|(need, .., member)| (*need, member.told_at()));
        let mut all = true;
        for (need, topic, partition, member) in waiting {
            let events = need == Need::Events;
            if self.outbox.has_room(events) {
                self.outbox.push(batch(topic, partition, member));
            } else if events {
                all = false;
            }
        }
        all
    }

    /// All partitions that are read.
    fn assignment(&self) -> TopicPartitionList {
        self.partitions(|_| true)
    }

    /// Those that are not withheld.
    fn readable(&self) -> TopicPartitionList {
        self.partitions(|member| !member.is_withheld())
    }

    fn partitions(&self, which: impl Fn(&P::Member) -> bool) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (topic, partitions) in self.members().iter() {
            for (partition, _) in partitions.iter().filter(|(_, member)| which(member)) {
                list.add_partition(topic, *partition);
            }
        }
        list
    }
}

pub(crate) fn find<'a, M>(members: &'a mut Members<M>, topic: &str, partition: i32) -> Option<&'a mut M> {
    members.get_mut(topic)?.get_mut(&partition)
}

#[cfg(test)]
mod tests;
