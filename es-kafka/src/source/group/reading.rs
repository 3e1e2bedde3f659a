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
};

use super::{Group, find, pressure::Pressure, published::Published};
use crate::{
    claim::payload_bytes,
    client::{is_out_of_range, unavailable},
    config::KafkaSourceConfig,
    follower::Follower,
    payloads::Payloads,
    progress::Progress,
    source::{
        chain::patience,
        compacted::Compacted,
        group_offsets::GroupOffsets,
        member::{Member, offsets_of},
        outbox::Outbox,
        postponed::Postponed,
    },
    topics::{Topics, shard},
};

/// How often the progress is looked at before it is known.
const LOOK: Duration = Duration::from_millis(10);
/// How long is read before the group is attended to again: payloads may come slowly.
const SLICE: Duration = Duration::from_secs(1);
/// How long is waited at once for a reader that is to take what comes before an error.
const ROOM: Duration = Duration::from_millis(200);

/// How long at least a reader may take to learn how far the relay is.
const FIRST: Duration = Duration::from_secs(10);

/// Reads until the reader is gone, then leaves the group.
pub(crate) fn run(
    config: &KafkaSourceConfig,
    subscription: &Subscription,
    payloads: Payloads,
    mut compacted: Compacted,
    outbox: &Arc<Outbox>,
) -> Result<(), SourceError> {
    let mut follower = Follower::new(config, &subscription.reader)?;
    // Where the events are is known from it.
    let progress = first(&mut follower, outbox, config.reopen_after.max(FIRST))?;
    if outbox.stopped() {
        return Ok(());
    }
    let targets = progress.as_ref().map(|progress| progress.targets.clone());
    let topics = Topics::new(&config.topic_prefix).with_targets(targets.unwrap_or_default());
    topics.check(&subscription.categories)?;
    if let Some(progress) = &progress {
        compacted.check(config, &topics, progress, &subscription.categories)?;
    }
    let subscribed = topics.subscription(&subscription.categories);
    let published = Published {
        outbox: outbox.clone(),
        topics,
        subscription: subscription.clone(),
        observer: config.observer(&subscription.reader),
        progress: Mutex::new(progress.map(Arc::new)),
        payloads,
    };
    let group = Group::new(outbox.clone(), published);
    let consumer: BaseConsumer<Group<Published>> =
        config.member(subscription).create_with_context(group).map_err(unavailable)?;
    let names: Vec<&str> = subscribed.iter().map(String::as_str).collect();
    consumer.subscribe(&names).map_err(unavailable)?;
    let (pressure, group_offsets) = (Pressure::default(), GroupOffsets::new(offsets_of));
    let postponed = Postponed::default();
    let mut reading = Reading { config, consumer, follower, pressure, group_offsets, postponed, compacted };
    while !outbox.stopped() {
        reading.turn().inspect_err(|_| outbox.fails()).map_err(|error| reading.explained(error))?;
    }
    reading.group_offsets.tell_last(&reading.consumer, outbox);
    Ok(())
}

/// How far the relay is, unless it has said nothing yet, or the reader is gone. The watchdog sees nothing of this reader yet, so it does
/// not wait for longer than `patience`: a client that gets nothing any more is replaced.
fn first(follower: &mut Follower, outbox: &Outbox, patience: Duration) -> Result<Option<Progress>, SourceError> {
    let (mut progress, began) = (None, Instant::now());
    while !outbox.stopped() {
        progress = follower.newest()?.or(progress);
        if follower.knows_newest() {
            break;
        }
        if began.elapsed() >= patience {
            let reason = format!("the progress of the relay was not read to its end within {} s", patience.as_secs());
            return Err(SourceError::Unavailable(reason.into()));
        }
        std::thread::sleep(LOOK);
    }
    Ok(progress)
}

struct Reading<'a> {
    config: &'a KafkaSourceConfig,
    consumer: BaseConsumer<Group<Published>>,
    follower: Follower,
    pressure: Pressure,
    group_offsets: GroupOffsets,
    postponed: Postponed,
    compacted: Compacted,
}

impl Reading<'_> {
    fn group(&self) -> &Group<Published> {
        self.consumer.context()
    }

    fn explained(&self, error: SourceError) -> SourceError {
        self.follower.explained(error, self.group().of.progress().map(|progress| progress.incarnation))
    }

    fn turn(&mut self) -> Result<(), SourceError> {
        if let Some(progress) = self.follower.newest()? {
            let Published { topics, subscription, .. } = &self.consumer.context().of;
            self.compacted.check(self.config, topics, &progress, &subscription.categories)?;
            self.group().adopt(progress)?;
        }
        for (shard, checkpoint) in self.group().outbox.restarts() {
            self.group().restart(&self.consumer, &shard, &checkpoint)?;
        }
        self.group().check()?;
        self.cover()?;
        self.group_offsets.tell(&self.consumer, &self.consumer.context().outbox);
        let delivered = self.group().deliver(self.config);
        if self.postponed.is_kept() {
            self.postponed.due(delivered)?;
            self.group().outbox.wait_for_room(ROOM);
            return self.group().is_sound();
        }
        if self.pressure.push_back(&self.consumer, !delivered)? {
            self.gather()?;
        }
        self.group().is_sound()
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
        let members = self.group().members();
        let mut wait = patience(members.values().flat_map(BTreeMap::values).map(|member| &member.chain));
        drop(members);
        let (mut bytes, began) = (0, Instant::now());
        for _ in 0..self.config.batch_events {
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    bytes += payload_bytes(&message);
                    let mut members = self.group().members();
                    if let Some(member) = find(&mut members, message.topic(), message.partition())
                        && let Err(error) = member.chain.take(&message)
                    {
                        if !member.chain.is_withheld() {
                            return Err(error);
                        }
                        drop(members);
                        self.postponed.keep(error);
                        break;
                    }
                }
                Some(Err(error)) if is_out_of_range(&error) => return Err(self.group().out_of_range(&self.consumer)),
                Some(Err(error)) => self.group().heed(error)?,
                None => break,
            }
            if bytes >= self.config.batch_bytes || began.elapsed() >= SLICE {
                break;
            }
            wait = Duration::ZERO;
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use rdkafka::{mocking::MockCluster, types::RDKafkaRespErr};

    use super::*;

    /// A broker may know a topic, and not where it is, for as long as it likes. With twenty times the limit it
    /// waited for that long.
    #[test]
    fn a_reader_that_does_not_learn_how_far_the_relay_is_is_opened_again() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.topic_error("relay-progress", RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE).unwrap();
        let config = KafkaSourceConfig::new(cluster.bootstrap_servers(), "relay");
        let mut follower = Follower::new(&config, "reader").unwrap();
        let late = first(&mut follower, &Outbox::new(Vec::new()), Duration::from_secs(2)).unwrap_err();
        assert!(late.is_transient(), "{late:?}");
    }
}
