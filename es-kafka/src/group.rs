//! A consumer group: each partition a shard, its reader chosen by Kafka.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use es_core::{Batch, Checkpoint, Shard, SourceError, Subscription};
use rdkafka::{
    ClientContext, Message, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    types::RDKafkaRespErr,
};

use crate::{
    client,
    feed::Outbox,
    follower::{Follower, check, is_out_of_range, unavailable},
    lane::{self, Lane, Mark},
    progress::Progress,
    record,
    source::{self, KafkaSourceConfig},
    topics::Topics,
};

const POLL: Duration = Duration::from_millis(10);
/// How long the reader may keep the thread from polling before the partitions are paused instead.
const STALL: Duration = Duration::from_secs(1);

/// A partition that this member reads.
struct Member {
    lane: Lane,
    /// What the reader has been told last.
    told: Mark,
    told_at: Option<Instant>,
    at_end: bool,
}

type Members = BTreeMap<String, BTreeMap<i32, Member>>;

/// What the rebalance callback and the loop share. Both run on the one thread of the consumer: the
/// callback within `poll`, so that no lock is held across it.
struct Group {
    outbox: Arc<Outbox>,
    topics: Topics,
    subscription: Subscription,
    members: Mutex<Members>,
    failure: Mutex<Option<SourceError>>,
}

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
        members: Mutex::default(),
        failure: Mutex::default(),
    };
    let consumer: BaseConsumer<Group> =
        config.consumer(&subscription.reader).create_with_context(group).map_err(unavailable)?;
    let names: Vec<&str> = subscribed.iter().map(String::as_str).collect();
    consumer.subscribe(&names).map_err(unavailable)?;
    let follower = Follower::new(config, &subscription.reader)?;
    let mut reading = Reading { config, consumer, follower, progress: None, full_since: None, paused: false };
    while !outbox.stopped() {
        reading.turn()?;
    }
    Ok(())
}

struct Reading<'a> {
    config: &'a KafkaSourceConfig,
    consumer: BaseConsumer<Group>,
    follower: Follower,
    progress: Option<Progress>,
    full_since: Option<Instant>,
    paused: bool,
}

impl Reading<'_> {
    fn group(&self) -> &Group {
        self.consumer.context()
    }

    fn turn(&mut self) -> Result<(), SourceError> {
        for (shard, checkpoint) in self.group().outbox.restarts() {
            self.group().restart(&self.consumer, &shard, &checkpoint)?;
        }
        if let Some(progress) = self.follower.newest()? {
            self.progress = Some(progress);
        }
        let delivered = self.group().deliver(self.progress.as_ref(), self.config);
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

    fn gather(&mut self) -> Result<(), SourceError> {
        let (mut patience, mut bytes) = (POLL, 0);
        for _ in 0..self.config.batch_events {
            match self.consumer.poll(patience) {
                Some(Ok(message)) => {
                    let event = record::decode(&message)?;
                    bytes += event.data.payload.len();
                    let mut members = self.group().members();
                    if let Some(member) = find(&mut members, message.topic(), message.partition()) {
                        member.lane.take(message.offset(), event)?;
                    }
                }
                Some(Err(error)) if is_out_of_range(&error) => return self.group().find_expired(&self.consumer),
                Some(Err(error)) => check(error)?,
                None => break,
            }
            if bytes >= self.config.batch_bytes {
                break;
            }
            patience = Duration::ZERO;
        }
        Ok(())
    }
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
    fn deliver(&self, progress: Option<&Progress>, config: &KafkaSourceConfig) -> bool {
        let progress = progress.filter(|progress| self.is_known(progress));
        for (topic, partitions) in self.members().iter_mut() {
            for (partition, member) in partitions {
                if !self.outbox.has_room() {
                    return false;
                }
                let written = progress.map(|progress| progress.offsets.next(topic, *partition));
                let published = progress.map(Mark::from).unwrap_or_default();
                if let Some(batch) = member.batch(source::shard(topic, *partition), written, published, config) {
                    self.outbox.push(batch);
                }
            }
        }
        true
    }

    /// Whether the reader knows all partitions of which `progress` speaks. Before that, no shard may
    /// claim to have reached it: the least of the checkpoints would lie.
    fn is_known(&self, progress: &Progress) -> bool {
        let shards = self.outbox.shards();
        let mut written = progress.offsets.iter();
        written.all(|(topic, partition, _)| {
            !self.topics.holds(topic, &self.subscription.categories)
                || shards.binary_search(&source::shard(topic, partition)).is_ok()
        })
    }

    /// New partitions: the reader takes their leases and says where each starts. Until it has done
    /// so the thread waits, since only within this callback a partition can be given its offset.
    fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Result<(), SourceError> {
        self.outbox.set_shards(source::shards(consumer, &self.topics, &self.subscription.categories)?);
        let partitions: Vec<_> =
            list.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect();
        let shards: Vec<_> = partitions.iter().map(|(topic, partition)| source::shard(topic, *partition)).collect();
        self.outbox.assigned(shards.clone());
        let checkpoints = self.outbox.wait_for_starts(&shards).unwrap_or_default();
        let mut offsets = TopicPartitionList::with_capacity(partitions.len());
        for ((topic, partition), checkpoint) in partitions.into_iter().zip(checkpoints) {
            let (member, begin) = Member::start(consumer, &topic, partition, &checkpoint)?;
            offsets.add_partition_offset(&topic, partition, Offset::Offset(begin)).map_err(unavailable)?;
            self.members().entry(topic).or_default().insert(partition, member);
        }
        // Also when it is empty: the group waits for the answer.
        consumer.incremental_assign(&offsets).map_err(unavailable)
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Result<(), SourceError> {
        let mut members = self.members();
        let mut shards = Vec::new();
        for element in list.elements() {
            if let Some(partitions) = members.get_mut(element.topic()) {
                partitions.remove(&element.partition());
            }
            shards.push(source::shard(element.topic(), element.partition()));
        }
        self.outbox.revoked(shards);
        consumer.incremental_unassign(list).map_err(unavailable)
    }

    /// The reader goes back to a checkpoint of a shard that it had started already.
    fn restart(
        &self,
        consumer: &BaseConsumer<Self>,
        shard: &Shard,
        checkpoint: &Checkpoint,
    ) -> Result<(), SourceError> {
        let mut members = self.members();
        for (topic, partitions) in members.iter_mut() {
            for (partition, member) in partitions {
                if source::shard(topic, *partition) == *shard {
                    let (started, begin) = Member::start(consumer, topic, *partition, checkpoint)?;
                    *member = started;
                    return consumer
                        .seek(topic, *partition, Offset::Offset(begin), Duration::from_secs(10))
                        .map_err(unavailable);
                }
            }
        }
        Ok(())
    }

    /// librdkafka does not say which partition is too short.
    fn find_expired(&self, consumer: &BaseConsumer<Self>) -> Result<(), SourceError> {
        for (topic, partitions) in self.members().iter() {
            for (partition, member) in partitions {
                lane::begin(consumer, topic, *partition, member.lane.next, member.lane.mark)?;
            }
        }
        Ok(())
    }
}

fn find<'a>(members: &'a mut Members, topic: &str, partition: i32) -> Option<&'a mut Member> {
    members.get_mut(topic)?.get_mut(&partition)
}

impl Member {
    fn start(
        consumer: &BaseConsumer<Group>,
        topic: &str,
        partition: i32,
        checkpoint: &Checkpoint,
    ) -> Result<(Self, i64), SourceError> {
        let next = match &checkpoint.cursor {
            Some(cursor) => cursor.parse().map_err(|reason: std::num::ParseIntError| SourceError::Damaged {
                place: format!("the checkpoint of shard {topic}/{partition}"),
                reason: reason.to_string(),
            })?,
            // Nothing was read from Kafka yet: begin at the beginning, and skip what is folded.
            None => 0,
        };
        let mark = Mark::of(checkpoint);
        let begin = lane::begin(consumer, topic, partition, next, mark)?;
        Ok((Self { lane: Lane::new(next, mark), told: mark, told_at: None, at_end: false }, begin))
    }

    /// What the reader does not know yet: events, or just that nothing is missing.
    fn batch(
        &mut self,
        shard: Shard,
        written: Option<i64>,
        published: Mark,
        config: &KafkaSourceConfig,
    ) -> Option<Batch> {
        let read_all = written.is_some_and(|written| self.lane.next >= written);
        let complete = written.map_or(self.lane.mark, |written| self.lane.complete(written, published));
        let due = self.told_at.is_none_or(|told_at| told_at.elapsed() >= config.advance_every);
        let moved = complete.position > self.told.position && due;
        let ends = read_all && !self.at_end;
        if self.lane.buffer.is_empty() && !moved && !ends {
            return None;
        }
        self.lane.bytes = 0;
        let events: Vec<_> = self.lane.buffer.drain(..).map(|(_, event)| event).collect();
        self.told = complete;
        self.told_at = Some(Instant::now());
        self.at_end = read_all;
        let checkpoint = complete.checkpoint(self.lane.next.to_string());
        Some(Batch { shard, events, checkpoint, at_end: read_all })
    }
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        client::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::report(&error, reason);
    }
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let outcome = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, list),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => self.revoke(consumer, list),
            other => {
                tracing::warn!(?other, "rebalance");
                Ok(())
            }
        };
        if let Err(failure) = outcome {
            self.failure().get_or_insert(failure);
        }
    }
}
