//! Kafka's own offsets of a consumer group, for tools that show its lag.

use std::time::{Duration, Instant};

use es_core::backend::{Checkpoint, Shard};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
};

use super::outbox::Outbox;
use crate::offsets::Offsets;

/// How often a group is told at most.
const EVERY: Duration = Duration::from_secs(1);

/// Tells the group of a consumer how far its reader has come, after the reader has committed it. Nothing depends on these offsets:
/// checkpoints are in the store.
pub(crate) struct GroupOffsets {
    told_at: Option<Instant>,
    /// The next offsets that a checkpoint stands for.
    of: fn(&Shard, &Checkpoint) -> Offsets,
}

impl GroupOffsets {
    pub(crate) fn new(of: fn(&Shard, &Checkpoint) -> Offsets) -> Self {
        Self { told_at: None, of }
    }

    /// Without waiting for an answer.
    pub(crate) fn tell<C: ConsumerContext>(&mut self, consumer: &BaseConsumer<C>, outbox: &Outbox) {
        if self.told_at.is_none_or(|told_at| told_at.elapsed() >= EVERY) {
            self.told_at = Some(Instant::now());
            self.commit(consumer, outbox, CommitMode::Async);
        }
    }

    /// Before the consumer leaves the group.
    pub(crate) fn tell_last<C: ConsumerContext>(&self, consumer: &BaseConsumer<C>, outbox: &Outbox) {
        self.commit(consumer, outbox, CommitMode::Sync);
    }

    fn commit<C: ConsumerContext>(&self, consumer: &BaseConsumer<C>, outbox: &Outbox, mode: CommitMode) {
        let mut list = TopicPartitionList::new();
        for (shard, checkpoint) in outbox.take_committed() {
            for (topic, partition, next) in (self.of)(&shard, &checkpoint).iter() {
                if let Err(error) = list.add_partition_offset(topic, partition, Offset::Offset(next)) {
                    tracing::debug!(%shard, %error, "the offset cannot be told to the group");
                }
            }
        }
        if list.count() > 0
            && let Err(error) = consumer.commit(&list, mode)
        {
            tracing::debug!(%error, "the group is not told how far its reader has come");
        }
    }
}
