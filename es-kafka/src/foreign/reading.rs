//! The thread that reads a topic of another system.

use std::{collections::HashSet, sync::Arc, time::Duration};

use es_core::backend::{Checkpoint, Shard, SourceError, Subscription};
use rdkafka::{
    ClientConfig, Message, Offset,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
};

use super::{KafkaTopic, begin::begin, member::Member, partitions, record::Record};
use crate::{
    client::{is_out_of_range, unavailable},
    offsets::Offsets,
    record::place_of,
    source::{
        begin::{was_out_of_range, watermarks},
        group::{Group, Partitions, find, pressure::Pressure},
        group_offsets::GroupOffsets,
        outbox::Outbox,
    },
    topics::shard,
};

const POLL: Duration = Duration::from_millis(10);

/// Reads until the reader is gone, then leaves the group.
pub(super) fn run(
    topic: &KafkaTopic,
    category: String,
    first: Vec<Shard>,
    subscription: &Subscription,
    outbox: &Arc<Outbox>,
) -> Result<(), SourceError> {
    let observer = topic.config.observer(&subscription.reader);
    let foreign = Foreign { topic: topic.clone(), category, first: first.into_iter().collect(), observer };
    let mut client = topic.config.consumer(subscription);
    client.set("enable.partition.eof", "true");
    let consumer: BaseConsumer<Group<Foreign>> =
        client.create_with_context(Group::new(outbox.clone(), foreign)).map_err(unavailable)?;
    consumer.subscribe(&[&topic.topic]).map_err(unavailable)?;
    let group_offsets = GroupOffsets::new(offsets_of);
    let mut reading = Reading { consumer, pressure: Pressure::default(), group_offsets };
    while !outbox.stopped() {
        reading.turn()?;
    }
    reading.group_offsets.tell_last(&reading.consumer, outbox);
    Ok(())
}

/// A topic of another system, as what a group reads.
struct Foreign {
    topic: KafkaTopic,
    category: String,
    /// The partitions that were there when the source was opened.
    first: HashSet<Shard>,
    /// Makes clients beside the consumer.
    observer: ClientConfig,
}

impl Partitions for Foreign {
    type Member = Member;

    fn list<C: ConsumerContext>(&self, consumer: &BaseConsumer<C>) -> Result<Vec<Shard>, SourceError> {
        partitions(consumer, &self.topic.topic)
    }

    fn start<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        (topic, partition): (&str, i32),
        checkpoint: &Checkpoint,
    ) -> Result<(Member, i64), SourceError> {
        let is_added = !self.first.contains(&shard(topic, partition));
        let clients = (consumer, &self.observer);
        let begin = begin(clients, &self.topic.declared, (topic, partition), checkpoint, is_added)?;
        Ok((Member::new(begin, checkpoint), begin))
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
}

impl Reading {
    fn group(&self) -> &Group<Foreign> {
        self.consumer.context()
    }

    fn turn(&mut self) -> Result<(), SourceError> {
        for (shard, checkpoint) in self.group().outbox.restarts() {
            self.group().restart(&self.consumer, &shard, &checkpoint)?;
        }
        let advance_every = self.group().of.topic.config.advance_every;
        let delivered = self.group().hand_on(
            |_, _, member| member.need(advance_every),
            |topic, partition, member| member.batch(shard(topic, partition)),
        );
        self.group_offsets.tell(&self.consumer, &self.consumer.context().outbox);
        if self.pressure.push_back(&self.consumer, !delivered)? {
            self.gather()?;
        }
        self.group().is_sound()
    }

    fn gather(&self) -> Result<(), SourceError> {
        let Foreign { topic, category, .. } = &self.group().of;
        let (mut patience, mut bytes) = (POLL, 0);
        for _ in 0..topic.config.batch_events {
            match self.consumer.poll(patience) {
                Some(Ok(message)) => {
                    bytes += message.payload_len();
                    let mut members = self.group().members();
                    if let Some(member) = find(&mut members, message.topic(), message.partition()) {
                        let event = topic.declared.event(&Record::of(&message), category);
                        member.take(event, message.offset() + 1);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => self.at_end(partition)?,
                Some(Err(error)) if is_out_of_range(&error) => return Err(self.out_of_range()),
                Some(Err(error)) => self.group().heed(error)?,
                None => break,
            }
            if bytes >= topic.config.batch_bytes {
                break;
            }
            patience = Duration::ZERO;
        }
        Ok(())
    }

    /// At the end of the partition nothing is left but what is no record for this consumer: markers of transactions, and what was
    /// aborted. The checkpoint passes these.
    fn at_end(&self, partition: i32) -> Result<(), SourceError> {
        let topic = &self.group().of.topic.topic;
        let positions = self.consumer.position().map_err(unavailable)?;
        let position = positions.find_partition(topic, partition).map(|found| found.offset());
        if let (Some(Offset::Offset(next)), Some(member)) =
            (position, find(&mut self.group().members(), topic, partition))
        {
            member.take(None, next);
        }
        Ok(())
    }

    /// librdkafka does not say of which partition records were deleted before they were read.
    fn out_of_range(&self) -> SourceError {
        let Foreign { topic: KafkaTopic { topic, declared, .. }, .. } = &self.group().of;
        for (partition, member) in self.group().members().values().flatten() {
            match watermarks(&self.consumer, topic, *partition, 0) {
                Ok((low, _)) if low > member.next && !declared.passes_lost => {
                    return SourceError::Expired { place: place_of(topic, *partition, member.next) };
                }
                Ok(_) => {}
                Err(error) => return error,
            }
        }
        was_out_of_range()
    }
}
