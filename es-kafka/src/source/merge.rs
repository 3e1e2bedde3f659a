//! All partitions as one shard in log order.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use es_core::backend::{Categories, Checkpoint, SourceError, Subscription};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};

use super::{
    begin::{self, begin},
    chain::patience,
    compacted::Compacted,
    group_offsets::GroupOffsets,
    horizon::{self, Horizon, Missing},
    mark::Written,
    outbox::Outbox,
    postponed::Postponed,
    shards,
};
use crate::{
    client::{Quiet, check, is_out_of_range, unavailable},
    config::KafkaSourceConfig,
    follower::Follower,
    payloads::Payloads,
    progress::Progress,
    topics::{Topics, merged},
};

/// How long is read before what was read is handed on: payloads may come slowly.
const SLICE: Duration = Duration::from_secs(1);

/// Reads until the reader is gone. Partitions are assigned by hand: the lease in the read model
/// store excludes other readers of the one shard.
pub(crate) fn run(
    config: &KafkaSourceConfig,
    subscription: &Subscription,
    payloads: &Payloads,
    compacted: &mut Compacted,
    outbox: &Arc<Outbox>,
) -> Result<(), SourceError> {
    let shard = merged();
    outbox.assigned(vec![shard.clone()]);
    let Some(mut checkpoints) = outbox.wait_for_starts(std::slice::from_ref(&shard)) else { return Ok(()) };
    while let Some(checkpoint) = checkpoints.pop() {
        let mut merge = Merge::open(config, subscription, payloads, &checkpoint)?;
        loop {
            if outbox.stopped() {
                merge.group_offsets.tell_last(&merge.consumer, outbox);
                return Ok(());
            }
            if let Some(again) = outbox.restarts().remove(&shard) {
                checkpoints.push(again);
                break;
            }
            merge.turn(compacted, outbox).map_err(|error| merge.explained(error))?;
        }
    }
    Ok(())
}

struct Merge<'a> {
    config: &'a KafkaSourceConfig,
    consumer: BaseConsumer<Quiet>,
    /// Makes clients beside the consumer.
    observer: ClientConfig,
    follower: Follower,
    horizon: Horizon,
    topics: Topics,
    categories: Categories,
    /// When the reader last got a checkpoint without events.
    advanced: Option<Instant>,
    group_offsets: GroupOffsets,
    postponed: Postponed,
}

impl<'a> Merge<'a> {
    fn open(
        config: &'a KafkaSourceConfig,
        subscription: &Subscription,
        payloads: &Payloads,
        checkpoint: &Checkpoint,
    ) -> Result<Self, SourceError> {
        let topics = Topics::new(&config.topic_prefix);
        let categories = subscription.categories.clone();
        let mut horizon = Horizon::new(topics.clone(), categories.clone(), checkpoint)?;
        horizon.payloads = payloads.clone();
        let consumer = config.merging(subscription).create_with_context(Quiet).map_err(unavailable)?;
        let follower = Follower::new(config, &subscription.reader)?;
        let (observer, group_offsets) = (config.observer(&subscription.reader), GroupOffsets::new(horizon::offsets_of));
        Ok(Self {
            config,
            consumer,
            observer,
            follower,
            horizon,
            topics,
            categories,
            advanced: None,
            group_offsets,
            postponed: Postponed::default(),
        })
    }

    fn explained(&self, error: SourceError) -> SourceError {
        self.follower.explained(error, self.horizon.incarnation())
    }

    fn turn(&mut self, compacted: &mut Compacted, outbox: &Outbox) -> Result<(), SourceError> {
        self.group_offsets.tell(&self.consumer, outbox);
        if let Some(progress) = self.follower.newest()? {
            let topics = self.horizon.learn(&progress)?;
            if *topics != self.topics {
                topics.clone_into(&mut self.topics);
            }
            compacted.check(self.config, &self.topics, &progress, &self.categories)?;
            let missing = self.horizon.missing(&progress)?;
            self.assign(&missing, &progress)?;
            self.horizon.adopt(progress)?;
        }
        self.horizon.newest = self.follower.knows_newest();
        self.gather()?;
        if self.horizon.chains().any(|(_, _, chain)| chain.passes()) {
            outbox.reads(&merged());
        }
        self.cover()?;
        if !outbox.has_room(true) {
            outbox.wait_for_room(Duration::from_millis(200));
        }
        while outbox.has_room(true) && outbox.has_room(false) && self.deliver(outbox)? {}
        // The other partitions are read on until one whose next event cannot be had keeps the horizon where it is.
        let handed_on = self.horizon.chains().any(|(_, _, chain)| chain.is_withheld() && chain.is_empty());
        self.postponed.due(handed_on)?;
        self.pause_and_resume()
    }

    /// Partitions that have come into being are read from where the checkpoint says, or from their
    /// beginning, before the progress that speaks of them counts.
    fn assign(&mut self, missing: &[Missing], progress: &Progress) -> Result<(), SourceError> {
        if missing.is_empty() {
            return Ok(());
        }
        shards::list(&self.consumer, &self.topics, &self.categories, Some(progress))?;
        let mut list = TopicPartitionList::with_capacity(missing.len());
        let clients = (&self.consumer, &self.observer);
        for Missing { topic, partition, cursor, written } in missing {
            let begin = begin(clients, (topic, *partition), *cursor, self.horizon.delivered(), *written)?;
            list.add_partition_offset(topic, *partition, Offset::Offset(begin.offset)).map_err(unavailable)?;
            self.horizon.add(topic, *partition, begin);
        }
        self.consumer.incremental_assign(&list).map_err(unavailable)
    }

    /// An event that waits too long for a progress that speaks of it is foreign, if the progress does not.
    fn cover(&mut self) -> Result<(), SourceError> {
        if self.horizon.chains().any(|(_, _, chain)| chain.uncovered().is_some()) {
            let progress = self.follower.look_up()?;
            for (_, _, chain) in self.horizon.chains() {
                if let Some(offset) = chain.uncovered() {
                    chain.cover(offset, progress.as_ref())?;
                }
            }
        }
        Ok(())
    }

    fn gather(&mut self) -> Result<(), SourceError> {
        let mut wait = patience(self.horizon.chains().map(|(_, _, chain)| &*chain));
        let (most_bytes, began) = (self.chain_bytes(), Instant::now());
        for _ in 0..self.config.batch_events {
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    if let Some(chain) = self.horizon.chain(message.topic(), message.partition()) {
                        if let Err(error) = chain.take(&message) {
                            if !chain.is_withheld() {
                                return Err(error);
                            }
                            self.postponed.keep(error);
                            break;
                        }
                        if chain.holds(self.config.buffer_events, most_bytes) || began.elapsed() >= SLICE {
                            break;
                        }
                    }
                }
                Some(Err(error)) if is_out_of_range(&error) => return Err(self.out_of_range()),
                Some(Err(error)) => check(error)?,
                None => break,
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    /// Hands on one batch; `false` when there is none.
    fn deliver(&mut self, outbox: &Outbox) -> Result<bool, SourceError> {
        let due = self.advanced.is_none_or(|advanced| advanced.elapsed() >= self.config.advance_every);
        let moved = if due || self.horizon.has_events() {
            self.horizon.advance(self.config.batch_events, self.config.batch_bytes)?
        } else {
            None
        };
        let Some(batch) = moved.or_else(|| self.horizon.end()) else { return Ok(false) };
        self.advanced = Some(Instant::now());
        outbox.push(batch);
        Ok(true)
    }

    /// A full buffer stops its partition (R17). The partition that holds the horizon back is never
    /// stopped for long: all that is buffered of it lies below the horizon and is handed on.
    fn pause_and_resume(&mut self) -> Result<(), SourceError> {
        let most_bytes = self.chain_bytes();
        let (mut pause, mut resume) = (TopicPartitionList::new(), TopicPartitionList::new());
        for (topic, partition, chain) in self.horizon.chains() {
            let full = chain.holds(self.config.buffer_events, most_bytes);
            let drained = !chain.holds(self.config.buffer_events / 2 + 1, most_bytes / 2 + 1);
            if full && !chain.paused {
                chain.paused = true;
                pause.add_partition(topic, partition);
            } else if drained && chain.paused {
                chain.paused = false;
                resume.add_partition(topic, partition);
            }
        }
        if pause.count() > 0 {
            self.consumer.pause(&pause).map_err(unavailable)?;
        }
        if resume.count() > 0 {
            self.consumer.resume(&resume).map_err(unavailable)?;
        }
        Ok(())
    }

    /// The share of one partition in the memory for buffers.
    fn chain_bytes(&self) -> usize {
        self.config.buffer_bytes / self.horizon.count().max(1)
    }

    /// librdkafka does not say which partition is too short.
    fn out_of_range(&mut self) -> SourceError {
        let delivered = self.horizon.delivered();
        for (topic, partition, chain) in self.horizon.chains() {
            let next = Some(chain.next());
            match begin((&self.consumer, &self.observer), (topic, partition), next, delivered, Written::default()) {
                Ok(begin) if begin.offset > chain.next() => return chain.expired(),
                Ok(_) => {}
                Err(error) => return error,
            }
        }
        begin::was_out_of_range()
    }
}
