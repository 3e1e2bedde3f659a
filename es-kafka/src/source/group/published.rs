//! The topics that a relay fills, as what a group reads.

use std::sync::{Arc, Mutex, PoisonError};

use es_core::backend::{Checkpoint, Shard, SourceError, Subscription};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, ConsumerContext},
};

use super::{Group, Partitions};
use crate::{
    config::KafkaSourceConfig,
    payloads::Payloads,
    progress::Progress,
    source::{
        member::{Known, Member},
        outbox::Outbox,
        shards,
    },
    topics::{Topics, shard},
};

pub(super) struct Published {
    pub(super) outbox: Arc<Outbox>,
    pub(super) topics: Topics,
    pub(super) subscription: Subscription,
    /// Makes clients beside the consumer.
    pub(super) observer: ClientConfig,
    /// The newest that is known, and that all partitions are measured by.
    pub(super) progress: Mutex<Option<Arc<Progress>>>,
    pub(super) payloads: Payloads,
}

impl Published {
    pub(super) fn progress(&self) -> Option<Arc<Progress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is known of the relay: the topic of its progress was read to the end before anything else was.
    pub(super) fn known<'a>(&self, progress: Option<&'a Progress>) -> Known<'a> {
        Known { progress, all: progress.is_none_or(|progress| self.is_known(progress)) }
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

impl Partitions for Published {
    type Member = Member;

    fn reads(&self, topic: &str) -> bool {
        self.topics.holds(topic, &self.subscription.categories)
    }

    fn list<C: ConsumerContext>(&self, consumer: &BaseConsumer<C>) -> Result<Vec<Shard>, SourceError> {
        shards::list(consumer, &self.topics, &self.subscription.categories, self.progress().as_deref())
    }

    fn start<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        place: (&str, i32),
        checkpoint: &Checkpoint,
    ) -> Result<(Member, i64), SourceError> {
        let progress = self.progress();
        let known = self.known(progress.as_deref());
        let (member, begin) = Member::start((consumer, &self.observer), place, checkpoint, known)?;
        Ok((member.with_payloads(self.payloads.clone()), begin))
    }
}

impl Group<Published> {
    /// Hands on what was read, as [`hand_on`](Group::hand_on).
    pub(super) fn deliver(&self, config: &KafkaSourceConfig) -> bool {
        let progress = self.of.progress();
        let known = self.of.known(progress.as_deref());
        self.hand_on(
            |topic, partition, member| member.need(known.of(topic, partition), known, config.advance_every),
            |topic, partition, member| member.batch(shard(topic, partition), known.of(topic, partition), known),
        )
    }

    pub(super) fn adopt(&self, progress: Progress) -> Result<(), SourceError> {
        if progress.targets != *self.of.topics.targets() {
            return Err(SourceError::Unavailable("the relay has other routes now".into()));
        }
        if let Some(known) = self.of.progress() {
            if known.incarnation != progress.incarnation {
                return Err(SourceError::Unavailable("the relay fills the topics again".into()));
            }
            progress.continues_from(&known)?;
        }
        *self.of.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(progress));
        Ok(())
    }

    /// Compares each partition with what the relay says that it has written.
    pub(super) fn check(&self) -> Result<(), SourceError> {
        let progress = self.of.progress();
        let known = self.of.known(progress.as_deref());
        for (topic, partitions) in self.members().iter_mut() {
            for (partition, member) in partitions {
                member.chain.check(known.of(topic, *partition))?;
            }
        }
        Ok(())
    }
}
