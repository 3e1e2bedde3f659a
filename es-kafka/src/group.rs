//! A consumer group: each partition a shard, its reader chosen by Kafka.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use es_core::{Checkpoint, Shard, SourceError, Subscription};
use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    types::RDKafkaRespErr,
};

use crate::{
    begin::{self, begin},
    client,
    feed::Outbox,
    follower::{Follower, check, is_out_of_range, unavailable},
    lane::{Mark, Written},
    member::{Known, Member, Need},
    progress::Progress,
    source::{self, KafkaSourceConfig},
    topics::Topics,
};

const POLL: Duration = Duration::from_millis(10);
/// How long the reader may keep the thread from polling before the partitions are paused instead.
const STALL: Duration = Duration::from_secs(1);

/// Partitions that are read from now on.
type Placed = Vec<(String, i32, Member)>;

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
        let uncovered = |member: &Member| member.lane.uncovered().is_some();
        if self.group().members().values().flat_map(BTreeMap::values).any(uncovered) {
            let progress = self.follower.look_up()?;
            for member in self.group().members().values_mut().flat_map(BTreeMap::values_mut) {
                if let Some(offset) = member.lane.uncovered() {
                    member.lane.cover(offset, progress.as_ref())?;
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
                        member.lane.take(&message)?;
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
                if member.lane.passes() {
                    self.group().outbox.reads(&source::shard(topic, *partition));
                }
            }
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
                self.outbox.push(member.batch(source::shard(topic, partition), written, known));
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
        let known = self.progress();
        if known.is_some_and(|known| known.incarnation != progress.incarnation) {
            return Err(SourceError::Unavailable("the relay fills the topics anew".into()));
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
                member.lane.check(known.of(topic, *partition))?;
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
                || shards.binary_search(&source::shard(topic, partition)).is_ok()
        })
    }

    /// New partitions. The group waits for an answer also when there are none of them, and also when
    /// they cannot be started: then the feed ends, and its consumer could not leave otherwise.
    fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Result<(), SourceError> {
        let outcome = self.place(consumer, list).and_then(|(members, offsets)| {
            consumer.incremental_assign(&offsets).map_err(unavailable)?;
            Ok(members)
        });
        match outcome {
            Ok(members) => {
                for (topic, partition, member) in members {
                    self.members().entry(topic).or_default().insert(partition, member);
                }
                Ok(())
            }
            Err(failure) => {
                if let Err(error) = consumer.incremental_assign(&TopicPartitionList::new()) {
                    tracing::warn!(%error, "the group gets no answer to an assignment");
                }
                Err(failure)
            }
        }
    }

    /// The reader takes the leases of new partitions and says where each starts. Until it has done so
    /// the thread waits, since only within the callback a partition can be given its offset.
    fn place(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &TopicPartitionList,
    ) -> Result<(Placed, TopicPartitionList), SourceError> {
        let progress = self.progress();
        let known = self.known(progress.as_deref());
        let shards = source::shards(consumer, &self.topics, &self.subscription.categories, known.progress)?;
        self.outbox.set_shards(shards);
        let partitions: Vec<_> =
            list.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect();
        let shards: Vec<_> = partitions.iter().map(|(topic, partition)| source::shard(topic, *partition)).collect();
        self.outbox.assigned(shards.clone());
        let checkpoints = self.outbox.wait_for_starts(&shards).unwrap_or_default();
        let mut members = Placed::with_capacity(partitions.len());
        let mut offsets = TopicPartitionList::with_capacity(partitions.len());
        for ((topic, partition), checkpoint) in partitions.into_iter().zip(checkpoints) {
            let (member, begin) = Member::start((consumer, &self.observer), (&topic, partition), &checkpoint, known)?;
            offsets.add_partition_offset(&topic, partition, Offset::Offset(begin)).map_err(unavailable)?;
            members.push((topic, partition, member));
        }
        Ok((members, offsets))
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Result<(), SourceError> {
        let mut members = self.members();
        let (mut shards, mut held) = (Vec::new(), TopicPartitionList::new());
        for element in list.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let removed = members.get_mut(topic).and_then(|partitions| partitions.remove(&partition));
            if removed.is_some() {
                // Only these: a partition that could not be started is not assigned, and a list with
                // it would be refused as a whole.
                held.add_partition(topic, partition);
            }
            shards.push(source::shard(topic, partition));
        }
        self.outbox.revoked(shards);
        consumer.incremental_unassign(&held).map_err(unavailable)
    }

    /// The reader goes back to a checkpoint of a shard that it had started already.
    fn restart(
        &self,
        consumer: &BaseConsumer<Self>,
        shard: &Shard,
        checkpoint: &Checkpoint,
    ) -> Result<(), SourceError> {
        let progress = self.progress();
        let known = self.known(progress.as_deref());
        let mut members = self.members();
        for (topic, partitions) in members.iter_mut() {
            for (partition, member) in partitions {
                if source::shard(topic, *partition) == *shard {
                    let (started, begin) =
                        Member::start((consumer, &self.observer), (topic, *partition), checkpoint, known)?;
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
    fn out_of_range(&self, consumer: &BaseConsumer<Self>) -> SourceError {
        for (topic, partitions) in self.members().iter() {
            for (partition, member) in partitions {
                let next = member.lane.next();
                let clients = (consumer, &self.observer);
                match begin(clients, (topic, *partition), Some(next), Mark::default(), Written::default()) {
                    Ok(begin) if begin.offset > next => return member.lane.expired(),
                    Ok(_) => {}
                    Err(error) => return error,
                }
            }
        }
        begin::was_out_of_range()
    }
}

fn find<'a>(members: &'a mut Members, topic: &str, partition: i32) -> Option<&'a mut Member> {
    members.get_mut(topic)?.get_mut(&partition)
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use std::collections::BTreeSet;

    use es_core::{
        Batch, Categories, Delivery, EventData, EventFeed, Metadata, Order, Position, RecordedEvent, StreamId,
        Takeover, Version,
    };
    use uuid::Uuid;

    use super::*;
    use crate::{
        feed::KafkaFeed,
        lane::{Begin, Mark},
        record,
        watchdog::Watchdog,
    };

    const PARTITIONS: i32 = 12;

    fn event(position: u64) -> RecordedEvent {
        RecordedEvent {
            position: Position::new(position),
            stream: StreamId::new("order", "1").unwrap(),
            version: Version::new(1),
            id: Uuid::from_u128(u128::from(position)),
            recorded_at: chrono::DateTime::UNIX_EPOCH,
            metadata: Metadata::default(),
            data: EventData { name: "happened".into(), schema_version: 1, payload: bytes::Bytes::from_static(b"{}") },
        }
    }

    /// A group whose partitions have news at every turn: no batch is too soon.
    fn group() -> (Group, KafkaSourceConfig, KafkaFeed) {
        let shards = (0..PARTITIONS).map(|partition| source::shard("order-events", partition));
        let mut shards: Vec<_> = shards.collect();
        shards.sort_unstable();
        let outbox = Outbox::new(shards);
        let members = (0..PARTITIONS).map(|partition| (partition, member(partition, Mark::default()))).collect();
        let group = Group {
            outbox: outbox.clone(),
            topics: Topics::new(""),
            subscription: Subscription {
                reader: "reader".into(),
                store: Uuid::nil(),
                categories: Categories::All,
                order: Order::PerStream,
            },
            observer: ClientConfig::new(),
            members: Mutex::new(BTreeMap::from([("order-events".to_owned(), members)])),
            progress: Mutex::default(),
            failure: Mutex::default(),
        };
        let config = KafkaSourceConfig { advance_every: Duration::ZERO, ..KafkaSourceConfig::new("", "relay") };
        let watchdog = Watchdog::new(Arc::new(config.clone()), "reader".into());
        (group, config, KafkaFeed::new(outbox, Takeover::Always, watchdog))
    }

    fn member(partition: i32, mark: Mark) -> Member {
        Member::new("order-events", partition, Begin::default(), mark)
    }

    fn progress(position: u64) -> Progress {
        let (position, event_id) = (Position::new(position), Uuid::from_u128(u128::from(position)));
        Progress {
            incarnation: Uuid::nil(),
            position,
            head: Position::new(9),
            event_id,
            recorded_at: chrono::DateTime::UNIX_EPOCH,
            offsets: crate::Offsets::default(),
            positions: crate::PerPartition::default(),
            partitions: BTreeMap::new(),
        }
    }

    async fn taken(feed: &mut KafkaFeed) -> Batch {
        match feed.next().await.unwrap() {
            Delivery::Batch(batch) => batch,
            other => panic!("{other:?}"),
        }
    }

    /// Able to lose: served from the first partition on, only the first few are ever heard of.
    #[tokio::test]
    async fn r13_every_quiet_partition_has_its_turn_however_slow_the_reader_is() {
        let (group, config, mut feed) = group();
        let mut heard = BTreeSet::new();
        for turn in 1..=20 {
            group.adopt(progress(turn)).unwrap();
            assert!(group.deliver(&config), "batches without events do not keep the loop from reading");
            heard.insert(taken(&mut feed).await.shard);
        }
        assert_eq!(heard.len(), 12, "{heard:?}");
    }

    #[tokio::test]
    async fn r17_events_are_bounded_and_pass_partitions_that_are_quiet() {
        let (group, config, mut feed) = group();
        let read = |position: u64, partitions: std::ops::Range<i32>| {
            for partition in partitions {
                let mut members = group.members();
                let member = find(&mut members, "order-events", partition).unwrap();
                let event = event(position);
                let message = record::published(&event, "order-events", partition, 0, Position::ZERO);
                member.lane.take(&message).unwrap();
            }
        };
        group.adopt(progress(1)).unwrap();
        assert!(group.deliver(&config));
        // Advances wait. Of six partitions with events there is room for four.
        read(2, 6..12);
        let mut two = progress(2);
        for partition in 6..12 {
            two.offsets.set("order-events", partition, 1);
            two.positions.set("order-events", partition, Position::new(2));
        }
        group.adopt(two).unwrap();
        group.check().unwrap();
        assert!(!group.deliver(&config));
        let mut served = Vec::new();
        while served.len() < 6 {
            let batch = taken(&mut feed).await;
            if !batch.events.is_empty() {
                served.push(batch.shard);
            }
            group.deliver(&config);
        }
        served.sort_unstable();
        served.dedup();
        assert_eq!(served.len(), 6, "{served:?}");
        assert!(group.deliver(&config));
    }

    #[tokio::test]
    async fn r12_the_end_is_said_once_of_every_partition_and_not_before_the_relay_has_spoken() {
        // The relay has published nothing yet, or three events.
        for progress in [progress(0), progress(3)] {
            let (group, config, mut feed) = group();
            let end = Mark::from(&progress);
            for (partition, placed) in group.members().get_mut("order-events").unwrap() {
                *placed = member(*partition, end);
            }
            group.deliver(&config);
            assert!(matches!(feed.next().await.unwrap(), Delivery::Idle), "the relay has said nothing yet");
            group.adopt(progress).unwrap();
            let mut ended = BTreeSet::new();
            for _ in 0..PARTITIONS {
                group.deliver(&config);
                let batch = taken(&mut feed).await;
                assert!(batch.end == Some(Position::new(9)) && batch.events.is_empty());
                assert_eq!(batch.checkpoint.position, end.position);
                assert!(ended.insert(batch.shard));
            }
            group.deliver(&config);
            assert!(matches!(feed.next().await.unwrap(), Delivery::Idle), "said twice");
        }
    }
}
