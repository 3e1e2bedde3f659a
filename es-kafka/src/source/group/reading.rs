//! The loop that reads for a group, and hands on.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use es_core::backend::{SourceError, Subscription};
use rdkafka::{
    Message,
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
};

use super::{Group, find};
use crate::{
    client::{check, is_out_of_range, unavailable},
    config::KafkaSourceConfig,
    follower::Follower,
    source::{member::Member, outbox::Outbox},
    topics::{Topics, shard},
};

const POLL: Duration = Duration::from_millis(10);
/// How long the reader may keep the thread from polling before the partitions are paused instead.
const STALL: Duration = Duration::from_secs(1);

/// Reads until the reader is gone, then leaves the group.
pub(crate) fn run(
    config: &KafkaSourceConfig,
    subscription: &Subscription,
    outbox: &Arc<Outbox>,
) -> Result<(), SourceError> {
    let topics = Topics::new(&config.topic_prefix);
    let subscribed = topics.subscription(&subscription.categories);
    let group = Group {
        outbox: outbox.clone(),
        topics,
        subscription: subscription.clone(),
        observer: config.observer(&subscription.reader),
        members: Mutex::default(),
        progress: Mutex::default(),
        failure: Mutex::default(),
    };
    let consumer: BaseConsumer<Group> =
        config.consumer(subscription).create_with_context(group).map_err(unavailable)?;
    let names: Vec<&str> = subscribed.iter().map(String::as_str).collect();
    consumer.subscribe(&names).map_err(unavailable)?;
    let follower = Follower::new(config, &subscription.reader)?;
    let mut reading = Reading { config, consumer, follower, full_since: None, paused: false };
    while !outbox.stopped() {
        reading.turn().map_err(|error| reading.explained(error))?;
    }
    Ok(())
}

struct Reading<'a> {
    config: &'a KafkaSourceConfig,
    consumer: BaseConsumer<Group>,
    follower: Follower,
    full_since: Option<Instant>,
    paused: bool,
}

impl Reading<'_> {
    fn group(&self) -> &Group {
        self.consumer.context()
    }

    fn explained(&self, error: SourceError) -> SourceError {
        self.follower.explained(error, self.group().progress().map(|progress| progress.incarnation))
    }

    fn turn(&mut self) -> Result<(), SourceError> {
        if let Some(progress) = self.follower.newest()? {
            self.group().adopt(progress)?;
        }
        if !self.follower.knows_newest() {
            // Where a partition is read from depends on it.
            std::thread::sleep(POLL);
            return Ok(());
        }
        for (shard, checkpoint) in self.group().outbox.restarts() {
            self.group().restart(&self.consumer, &shard, &checkpoint)?;
        }
        self.group().check()?;
        self.cover()?;
        let delivered = self.group().deliver(self.config);
        self.push_back(!delivered)?;
        if delivered || self.paused {
            self.gather()?;
        }
        match self.group().failure().take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Waits for a slow reader; when it is very slow, the partitions are paused and polled all the
    /// same, since Kafka takes a member that does not poll for dead.
    fn push_back(&mut self, full: bool) -> Result<(), SourceError> {
        if !full {
            self.full_since = None;
            if std::mem::take(&mut self.paused) {
                self.consumer.resume(&self.group().assignment()).map_err(unavailable)?;
            }
            return Ok(());
        }
        let since = *self.full_since.get_or_insert_with(Instant::now);
        self.group().outbox.wait_for_room(Duration::from_millis(200));
        if since.elapsed() >= STALL {
            // Again each time: a pause belongs to an assignment, and there may be a new one.
            self.consumer.pause(&self.group().assignment()).map_err(unavailable)?;
            self.paused = true;
        }
        Ok(())
    }

    /// An event that waits too long for a progress that speaks of it is foreign, if the progress does not.
    fn cover(&self) -> Result<(), SourceError> {
        let uncovered = |member: &Member| member.chain.uncovered().is_some();
        if self.group().members().values().flat_map(BTreeMap::values).any(uncovered) {
            let progress = self.follower.look_up()?;
            for member in self.group().members().values_mut().flat_map(BTreeMap::values_mut) {
                if let Some(offset) = member.chain.uncovered() {
                    member.chain.cover(offset, progress.as_ref())?;
                }
            }
        }
        Ok(())
    }

    fn gather(&mut self) -> Result<(), SourceError> {
        let (mut patience, mut bytes) = (POLL, 0);
        for _ in 0..self.config.batch_events {
            match self.consumer.poll(patience) {
                Some(Ok(message)) => {
                    bytes += message.payload_len();
                    let mut members = self.group().members();
                    if let Some(member) = find(&mut members, message.topic(), message.partition()) {
                        member.chain.take(&message)?;
                    }
                }
                Some(Err(error)) if is_out_of_range(&error) => return Err(self.group().out_of_range(&self.consumer)),
                Some(Err(error)) => {
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
                        self.group().outbox.lost_brokers();
                    }
                    check(error)?;
                }
                None => break,
            }
            if bytes >= self.config.batch_bytes {
                break;
            }
            patience = Duration::ZERO;
        }
        for (topic, partitions) in self.group().members().iter_mut() {
            for (partition, member) in partitions {
                if member.chain.passes() {
                    self.group().outbox.reads(&shard(topic, *partition));
                }
            }
        }
        Ok(())
    }
}
