//! The thread that reads a topic of another system.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use es_core::{
    RecordedEvent,
    backend::{Checkpoint, Shard, SourceError, Subscription},
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
};

use super::{
    KafkaTopic, LONGEST_DELAY,
    begin::begin,
    declared::Declared,
    elsewhere,
    forwarded::{Story, stage},
    look::Look,
    member::Member,
    partitions,
    read::position,
    record::Record,
};
use crate::{
    claim::payload_bytes,
    client::{is_out_of_range, unavailable},
    offsets::Offsets,
    payloads::Payloads,
    record::place_of,
    source::{
        begin::{was_out_of_range, watermarks},
        group::{Group, Partitions, find, pressure::Pressure},
        group_offsets::GroupOffsets,
        outbox::Outbox,
        postponed::Postponed,
    },
    topics::shard,
};

const POLL: Duration = Duration::from_millis(10);
/// How long is read before what was read is handed on: payloads may come slowly.
const SLICE: Duration = Duration::from_secs(1);
/// How long is waited at once for a reader that is to take what comes before an error.
const ROOM: Duration = Duration::from_millis(200);

/// Reads until the reader is gone, then leaves the group.
pub(super) fn run(
    topic: &KafkaTopic,
    category: String,
    (topics, first): (Vec<String>, Vec<Shard>),
    subscription: &Subscription,
    (look, payloads): (Look, Payloads),
    outbox: &Arc<Outbox>,
) -> Result<(), SourceError> {
    let observer = topic.config.observer(&subscription.reader);
    let (first, reader) = (first.into_iter().collect(), subscription.reader.clone());
    let foreign = Foreign { topic: topic.clone(), topics, category, reader, first, observer, payloads };
    let mut client = topic.config.member(subscription);
    client.set("enable.partition.eof", "true");
    let consumer: BaseConsumer<Group<Foreign>> =
        client.create_with_context(Group::new(outbox.clone(), foreign)).map_err(unavailable)?;
    let topics: Vec<_> = consumer.context().of.topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).map_err(unavailable)?;
    let group_offsets = GroupOffsets::new(offsets_of);
    let (pressure, postponed) = (Pressure::default(), Postponed::default());
    let mut reading = Reading { consumer, pressure, group_offsets, look, postponed };
    while !outbox.stopped() {
        reading.turn().inspect_err(|_| outbox.fails())?;
    }
    reading.group_offsets.tell_last(&reading.consumer, outbox);
    Ok(())
}

/// A topic of another system, as what a group reads.
struct Foreign {
    topic: KafkaTopic,
    /// It and its retry topics.
    topics: Vec<String>,
    category: String,
    reader: String,
    /// The partitions that were there when the source was opened.
    first: HashSet<Shard>,
    /// Makes clients beside the consumer.
    observer: ClientConfig,
    payloads: Payloads,
}

impl Partitions for Foreign {
    type Member = Member;

    fn list<C: ConsumerContext>(&self, consumer: &BaseConsumer<C>) -> Result<Vec<Shard>, SourceError> {
        partitions(consumer, &self.topics)
    }

    fn start<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        (topic, partition): (&str, i32),
        checkpoint: &Checkpoint,
    ) -> Result<(Member, i64), SourceError> {
        let (is_added, is_retry) = (!self.first.contains(&shard(topic, partition)), topic != self.topic.topic);
        let clients = (consumer, &self.observer);
        let begin = begin(clients, &self.topic.declared, (topic, partition), checkpoint, (is_added, is_retry))?;
        Ok((Member::new(begin, checkpoint), begin))
    }
}

impl Foreign {
    /// The event that `record` is, with its data.
    fn event(&self, record: &Record<'_>) -> Result<Option<RecordedEvent>, SourceError> {
        let (declared, category) = (&self.topic.declared, &self.category);
        if record.unreadable.is_some() {
            return Ok(declared.event(record, category));
        }
        Ok(match elsewhere::data(record, &self.payloads)? {
            None => declared.event(record, category),
            Some(Ok(data)) => {
                let Record { topic, partition, offset, millis, key, .. } = *record;
                let (value, headers, unreadable) = (Some(&*data), record.headers.clone(), None);
                let record = Record { topic, partition, offset, millis, key, headers, value, unreadable };
                declared.event(&record, category)
            }
            Some(Err(reason)) => Some(Declared::unreadable(record, category, reason)),
        })
    }

    /// What `record` is for the reader, and how long it is to wait for that.
    fn read(&self, record: Record<'_>) -> Result<(Option<RecordedEvent>, Duration), SourceError> {
        if stage(&self.topic.topic, record.topic) == 0 {
            return Ok((self.event(&record)?, Duration::ZERO));
        }
        let (story, headers) = match Story::of(&record) {
            Ok(read) => read,
            Err(reason) => {
                return Ok((Some(Declared::unreadable(&record, &self.category, reason)), Duration::ZERO));
            }
        };
        if story.handler.as_ref().is_some_and(|handler| *handler != self.reader) {
            return Ok((None, Duration::ZERO));
        }
        // The same message as before, at another place.
        let (position, stage) = (position(&record), stage(&self.topic.topic, record.topic));
        let event = self.event(&story.original(record, headers))?;
        let event = event.map(|event| RecordedEvent { position, ..event });
        // No record waits longer than its topic says, whatever a clock elsewhere has made of it.
        let delay = stage.checked_sub(1).and_then(|nth| self.topic.delays.get(nth));
        Ok((event, story.waits(Utc::now()).min(delay.copied().unwrap_or(LONGEST_DELAY))))
    }
}

/// A position is the offset of a record + 1.
fn offsets_of(shard: &Shard, checkpoint: &Checkpoint) -> Offsets {
    let place = shard.partition.and_then(|partition| i32::try_from(partition).ok());
    let next = checkpoint.cursor.as_ref().and(i64::try_from(checkpoint.position.get()).ok());
    place.zip(next).map(|(partition, next)| Offsets::one(&shard.source, partition, next)).unwrap_or_default()
}

struct Reading {
    consumer: BaseConsumer<Group<Foreign>>,
    pressure: Pressure,
    group_offsets: GroupOffsets,
    look: Look,
    postponed: Postponed,
}

impl Reading {
    fn group(&self) -> &Group<Foreign> {
        self.consumer.context()
    }

    fn turn(&mut self) -> Result<(), SourceError> {
        for (shard, checkpoint) in self.group().outbox.restarts() {
            self.group().restart(&self.consumer, &shard, &checkpoint)?;
        }
        self.end_waits()?;
        self.look.turn()?;
        let advance_every = self.group().of.topic.config.advance_every;
        let delivered = self.group().hand_on(
            |_, _, member| member.need(advance_every),
            |topic, partition, member| member.batch(shard(topic, partition)),
        );
        self.group_offsets.tell(&self.consumer, &self.consumer.context().outbox);
        if self.postponed.is_kept() {
            // The first batch of a partition only says where it begins.
            let handed_on = !self.group().members().values().flat_map(BTreeMap::values).any(Member::has_events);
            self.postponed.due(handed_on)?;
            self.group().outbox.wait_for_room(ROOM);
            return self.group().is_sound();
        }
        if self.pressure.push_back(&self.consumer, !delivered)? {
            self.gather()?;
        }
        self.group().is_sound()
    }

    /// Lets the records go whose time has come, and reads on behind them.
    fn end_waits(&self) -> Result<(), SourceError> {
        let mut over = Vec::new();
        for (topic, partitions) in self.group().members().iter_mut() {
            for (partition, member) in partitions.iter_mut().filter(|(_, member)| member.waits() || member.is_paused) {
                member.release();
                if member.waits() {
                    // Nothing is handed on, and that is no fault of the clients.
                    self.group().outbox.reads(&shard(topic, *partition));
                } else if std::mem::take(&mut member.is_paused) {
                    over.push((topic.clone(), *partition));
                }
            }
        }
        over.iter().try_for_each(|(topic, partition)| self.resume(topic, *partition))
    }

    fn resume(&self, topic: &str, partition: i32) -> Result<(), SourceError> {
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        self.consumer.resume(&list).map_err(unavailable)
    }

    /// The client reads no more of a partition whose next record waits: it would fill its queue with what comes after.
    fn pause(&self, topic: &str, partition: i32) -> Result<(), SourceError> {
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        self.consumer.pause(&list).map_err(unavailable)
    }

    fn gather(&mut self) -> Result<(), SourceError> {
        let config = &self.consumer.context().of.topic.config;
        let (mut patience, mut bytes, began) = (POLL, 0, Instant::now());
        for _ in 0..config.batch_events {
            match self.consumer.poll(patience) {
                Some(Ok(message)) => {
                    bytes += payload_bytes(&message);
                    let (topic, partition) = (message.topic(), message.partition());
                    let (event, wait) = match self.group().of.read(Record::of(&message)) {
                        Ok(read) => read,
                        Err(error) => {
                            self.postponed.keep(error);
                            break;
                        }
                    };
                    let mut members = self.group().members();
                    let Some(member) = find(&mut members, topic, partition) else { continue };
                    member.take(event, message.offset() + 1, wait);
                    if member.waits() {
                        member.is_paused = true;
                        drop(members);
                        self.pause(topic, partition)?;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => self.at_end(partition)?,
                Some(Err(error)) if is_out_of_range(&error) => return Err(self.out_of_range()),
                Some(Err(error)) => self.group().heed(error)?,
                None => break,
            }
            if bytes >= config.batch_bytes || began.elapsed() >= SLICE {
                break;
            }
            patience = Duration::ZERO;
        }
        Ok(())
    }

    /// At the end of a partition nothing is left but what is no record for this consumer: markers of transactions, and what was
    /// aborted. The checkpoint passes these. librdkafka does not say of which topic the partition is; of the others everything was read
    /// up to their positions too.
    fn at_end(&self, partition: i32) -> Result<(), SourceError> {
        let positions = self.consumer.position().map_err(unavailable)?;
        for topic in &self.group().of.topics {
            let position = positions.find_partition(topic, partition).map(|found| found.offset());
            if let (Some(Offset::Offset(next)), Some(member)) =
                (position, find(&mut self.group().members(), topic, partition))
            {
                member.take(None, next, Duration::ZERO);
            }
        }
        Ok(())
    }

    /// librdkafka does not say of which partition records were deleted before they were read.
    fn out_of_range(&self) -> SourceError {
        let declared = &self.group().of.topic.declared;
        for (topic, partitions) in self.group().members().iter() {
            for (partition, member) in partitions {
                match watermarks(&self.consumer, topic, *partition, 0) {
                    Ok((low, _)) if low > member.next && !declared.passes_lost => {
                        return SourceError::Expired { place: place_of(topic, *partition, member.next) };
                    }
                    Ok(_) => {}
                    Err(error) => return error,
                }
            }
        }
        was_out_of_range()
    }
}
