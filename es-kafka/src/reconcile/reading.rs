//! Reads the partitions of all topics at once, as far as the comparison needs them.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use es_core::RecordedEvent;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use super::{
    clients::{Clients, Stretch, check, late},
    compare::{Compare, Mismatch, Seen},
    error::ReconcileError,
    objects::Objects,
    violation::Violation,
};
use crate::{client::Quiet, progress::Progress, record::place_of};

const POLL: Duration = Duration::from_millis(100);
/// The most records that are taken before full partitions are paused.
const AT_ONCE: usize = 1_000;
/// How long a partition may bring nothing before it is looked at by itself.
const QUIET: Duration = Duration::from_secs(1);

pub(super) struct Reading {
    clients: Clients,
    consumer: BaseConsumer<Quiet>,
    pub(super) compare: Compare,
    pub(super) objects: Objects,
    buffer_bytes: usize,
    /// When the consumer last brought a record.
    heard: Instant,
}

impl Reading {
    /// Begins where `compare` stands; or what is deleted of it.
    pub(super) fn open(
        clients: Clients,
        mut compare: Compare,
        objects: Objects,
        buffer_bytes: usize,
    ) -> Result<Result<Self, Violation>, ReconcileError> {
        let consumer = clients.consumer()?;
        let mut list = TopicPartitionList::new();
        for lane in compare.lanes() {
            if lane.is_read() {
                // It is not assigned, so there is nothing to pause.
                lane.paused = true;
                continue;
            }
            let (first, _) = Clients::watermarks(&consumer, &lane.topic, lane.partition)?;
            if first > lane.read {
                let (topic, partition) = (lane.topic.clone(), lane.partition);
                return Ok(Err(Violation::Deleted { topic, partition, first }));
            }
            list.add_partition_offset(&lane.topic, lane.partition, Offset::Offset(lane.read))?;
        }
        consumer.assign(&list)?;
        Ok(Ok(Self { clients, consumer, compare, objects, buffer_bytes, heard: Instant::now() }))
    }

    /// Compares the next `events` of the log.
    pub(super) fn page(&mut self, events: &[RecordedEvent]) -> Result<Option<Mismatch>, ReconcileError> {
        for event in events {
            loop {
                match self.compare.expect(event) {
                    Seen::Same => break,
                    Seen::Elsewhere { claim, at } => {
                        self.clients.go_on()?;
                        let violation = self.objects.look(&claim, event.position, at)?;
                        // The brokers were not asked meanwhile.
                        self.heard = Instant::now();
                        if let Some(violation) = violation {
                            return Ok(Some(Mismatch::Plain(violation)));
                        }
                        self.compare.pass(event);
                        break;
                    }
                    Seen::Other(mismatch) => return Ok(Some(mismatch)),
                    Seen::Nothing { category, partition } => self.gather(&category, partition)?,
                }
            }
        }
        Ok(None)
    }

    /// Compares what is left with nothing.
    pub(super) fn rest(&mut self, progress: &Progress) -> Result<Option<Mismatch>, ReconcileError> {
        loop {
            match self.compare.rest(progress) {
                // What is left is no event of the log, so no object is looked for.
                Seen::Same | Seen::Elsewhere { .. } => return Ok(None),
                Seen::Other(mismatch) => return Ok(Some(mismatch)),
                Seen::Nothing { category, partition } => self.gather(&category, partition)?,
            }
        }
    }

    /// Reads on, until there may be a record of that partition.
    fn gather(&mut self, category: &str, partition: i32) -> Result<(), ReconcileError> {
        self.clients.go_on()?;
        self.pause_and_resume()?;
        let (most, mut patience) = (self.share(), POLL);
        for _ in 0..AT_ONCE {
            match self.consumer.poll(patience) {
                Some(Ok(record)) => {
                    self.heard = Instant::now();
                    if let Some(lane) = self.compare.of(record.topic(), record.partition()) {
                        lane.take(&record);
                        if lane.holds(most) || lane.is_read() {
                            break;
                        }
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => check(error)?,
                None => break,
            }
            patience = Duration::ZERO;
        }
        let waits = self.compare.lane(category, partition).is_some_and(|lane| !lane.has_records() && !lane.is_read());
        if waits && self.heard.elapsed() >= QUIET { self.look(category, partition) } else { Ok(()) }
    }

    /// Finds out whether a partition that brings nothing has nothing more.
    fn look(&mut self, category: &str, partition: i32) -> Result<(), ReconcileError> {
        let Some(lane) = self.compare.lane(category, partition) else { return Ok(()) };
        let stretch = Stretch { partition, from: lane.read, until: lane.until };
        let mut has_more = false;
        self.clients.scan(&lane.topic, &[stretch], |_| {
            has_more = true;
            ControlFlow::Break(())
        })?;
        if !has_more {
            let (_, decided) = Clients::watermarks(&self.consumer, &lane.topic, partition)?;
            if decided >= lane.until || self.clients.end(&lane.topic, partition)? < lane.until {
                // Nothing, or it is shorter than what was written to it.
                lane.read = lane.until;
                return Ok(());
            }
            if self.heard.elapsed() >= self.clients.patience {
                return Err(ReconcileError::Undecided { place: place_of(&lane.topic, partition, decided) });
            }
        } else if self.heard.elapsed() >= self.clients.patience {
            return Err(late());
        }
        Ok(())
    }

    /// A partition that is far ahead of the others waits, and so does one that is read.
    fn pause_and_resume(&mut self) -> Result<(), ReconcileError> {
        let most = self.share();
        let (mut pause, mut resume) = (TopicPartitionList::new(), TopicPartitionList::new());
        for lane in self.compare.lanes() {
            let full = lane.is_read() || lane.holds(most);
            let drained = !lane.is_read() && !lane.holds(most / 2 + 1);
            if full && !lane.paused {
                lane.paused = true;
                pause.add_partition(&lane.topic, lane.partition);
            } else if drained && lane.paused {
                lane.paused = false;
                resume.add_partition(&lane.topic, lane.partition);
            }
        }
        if pause.count() > 0 {
            self.consumer.pause(&pause)?;
        }
        if resume.count() > 0 {
            self.consumer.resume(&resume)?;
        }
        Ok(())
    }

    /// How much of the memory one partition may take.
    fn share(&mut self) -> usize {
        self.buffer_bytes / self.compare.lanes().count().max(1)
    }
}
