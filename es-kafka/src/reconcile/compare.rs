//! The comparison itself: events of the log against records, without any client.

use std::collections::{BTreeMap, VecDeque};

use es_core::{Position, RecordedEvent};
use rdkafka::Message;

use super::{cursor::Cursor, violation::Violation};
use crate::{
    claim::Claim,
    partitioner,
    progress::Progress,
    record::{self, Heading},
    topics::Topics,
    weight::weight,
};

/// All partitions that the relay has written to, each as far as it was read and compared.
#[derive(Debug)]
pub(super) struct Compare {
    topics: Topics,
    /// By category, and by the number of the partition.
    lanes: BTreeMap<String, Vec<Lane>>,
    /// Everything up to it is compared.
    reached: Position,
}

/// One partition.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// The offset after the last record that was compared.
    compared: i64,
    /// The offset after the last record that was read.
    pub(super) read: i64,
    /// The offset after the relay's last event.
    pub(super) until: i64,
    /// The last event that was compared.
    last: Position,
    waiting: VecDeque<Found>,
    /// What waits, in bytes.
    bytes: usize,
    pub(super) paused: bool,
}

/// A record.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) offset: i64,
    /// What it holds, or why it is no event.
    content: Result<Content, String>,
}

#[derive(Debug)]
struct Content {
    event: RecordedEvent,
    /// Where the payload is, if it is not in the record.
    claim: Option<Claim>,
    /// The position of the event before it.
    previous: Position,
}

impl Found {
    pub(super) fn of(record: &impl Message) -> Self {
        let content = Heading::claimed(record).and_then(|heading| {
            let (event, claim) = record::parse(record)?;
            Ok(Content { event, claim, previous: heading.previous })
        });
        Self { offset: record.offset(), content }
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.content.as_ref().map_or_else(String::len, |content| weight(&content.event))
    }
}

/// What was found where an event was expected.
#[derive(Debug)]
pub(super) enum Seen {
    /// The same.
    Same,
    /// The same, if the object is what the record claims; then it is to be [passed](Compare::pass).
    Elsewhere { claim: Claim, at: At },
    /// Nothing yet: more of this partition must be read.
    Nothing { category: String, partition: i32 },
    /// Something else.
    Other(Mismatch),
}

/// A difference that is not explained yet.
#[derive(Debug)]
pub(super) enum Mismatch {
    /// It needs no explanation.
    Plain(Violation),
    /// The partition holds nothing more.
    Absent { wanted: Wanted },
    /// A record of another event. What is `wanted` there is not known where the log is compared to its end.
    Instead { wanted: Option<Wanted>, at: At, event: Box<RecordedEvent>, last: Position },
}

/// An event, and where it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) position: Position,
    pub(super) topic: String,
    pub(super) partition: i32,
}

/// The place of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

impl At {
    pub(super) fn foreign(self, reason: impl Into<String>) -> Violation {
        let Self { topic, partition, offset } = self;
        Violation::Foreign { topic, partition, offset, reason: reason.into() }
    }
}

impl Compare {
    /// What `progress` tells of, from `cursor` on.
    pub(super) fn new(topics: Topics, progress: &Progress, cursor: &Cursor) -> Self {
        let mut lanes = BTreeMap::new();
        for (topic, count) in &progress.partitions {
            let Some(category) = topics.category(topic).map(str::to_owned) else { continue };
            let lane = |partition| {
                let next = cursor.offsets.next(topic, partition);
                Lane {
                    topic: topic.clone(),
                    partition,
                    compared: next,
                    read: next,
                    until: progress.offsets.next(topic, partition),
                    last: cursor.positions.get(topic, partition).unwrap_or_default(),
                    waiting: VecDeque::new(),
                    bytes: 0,
                    paused: false,
                }
            };
            lanes.insert(category, (0..*count).map(lane).collect());
        }
        Self { topics, lanes, reached: cursor.position }
    }

    pub(super) fn lanes(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.lanes.values_mut().flatten()
    }

    pub(super) fn of(&mut self, topic: &str, partition: i32) -> Option<&mut Lane> {
        let lanes = self.lanes.get_mut(self.topics.category(topic)?)?;
        lanes.get_mut(usize::try_from(partition).ok()?)
    }

    pub(super) fn lane(&mut self, category: &str, partition: i32) -> Option<&mut Lane> {
        self.lanes.get_mut(category)?.get_mut(usize::try_from(partition).ok()?)
    }

    /// Where `event` belongs.
    pub(super) fn place(&self, event: &RecordedEvent) -> Wanted {
        let category = event.stream.category();
        let count = self.lanes.get(category).map_or(0, Vec::len);
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        let partition = partitioner::partition(event.stream.as_str().as_bytes(), count);
        Wanted { position: event.position, topic: self.topics.events(category), partition }
    }

    /// Compares the next event of the log with the next record of its partition.
    pub(super) fn expect(&mut self, event: &RecordedEvent) -> Seen {
        let category = event.stream.category();
        if !self.topics.publishes(category) {
            self.reached = event.position;
            return Seen::Same;
        }
        let Some(lanes) = self.lanes.get_mut(category) else {
            // The relay has written to no such topic.
            return Seen::Other(Mismatch::Absent { wanted: self.place(event) });
        };
        let count = i32::try_from(lanes.len()).unwrap_or(i32::MAX);
        let partition = partitioner::partition(event.stream.as_str().as_bytes(), count);
        let Some(lane) = usize::try_from(partition).ok().and_then(|index| lanes.get_mut(index)) else {
            return Seen::Other(Mismatch::Absent { wanted: self.place(event) });
        };
        let Some(found) = lane.waiting.front() else {
            return if lane.is_read() {
                Seen::Other(Mismatch::Absent { wanted: self.place(event) })
            } else {
                Seen::Nothing { category: category.to_owned(), partition }
            };
        };
        let at = lane.at(found.offset);
        let mismatch = match &found.content {
            Err(reason) => Mismatch::Plain(at.foreign(reason.clone())),
            Ok(content) if content.event.position == event.position => {
                let Some(field) = difference(event, content, lane.last) else {
                    if let Some(claim) = &content.claim {
                        return Seen::Elsewhere { claim: claim.clone(), at };
                    }
                    lane.pass();
                    self.reached = event.position;
                    return Seen::Same;
                };
                let At { topic, partition, offset } = at;
                let (position, field) = (event.position, field.to_owned());
                Mismatch::Plain(Violation::Content { position, field, topic, partition, offset })
            }
            Ok(content) => Mismatch::Instead {
                wanted: Some(Wanted { position: event.position, topic: at.topic.clone(), partition }),
                at,
                event: Box::new(content.event.clone()),
                last: lane.last,
            },
        };
        Seen::Other(mismatch)
    }

    /// The object of the record that `event` was compared with is the right one.
    pub(super) fn pass(&mut self, event: &RecordedEvent) {
        let partition = self.place(event).partition;
        if let Some(lane) = self.lane(event.stream.category(), partition) {
            lane.pass();
            self.reached = event.position;
        }
    }

    /// What the partitions hold beyond the last event of the log that was published. A partition that has more to read is
    /// named.
    pub(super) fn rest(&mut self, progress: &Progress) -> Seen {
        for (category, lanes) in &mut self.lanes {
            for lane in lanes {
                if let Some(found) = lane.waiting.front() {
                    let at = lane.at(found.offset);
                    return Seen::Other(match &found.content {
                        Err(reason) => Mismatch::Plain(at.foreign(reason.clone())),
                        Ok(Content { event, .. }) => {
                            Mismatch::Instead { wanted: None, at, event: Box::new(event.clone()), last: lane.last }
                        }
                    });
                }
                if !lane.is_read() {
                    return Seen::Nothing { category: category.clone(), partition: lane.partition };
                }
                let told = progress.last(&lane.topic, lane.partition);
                if told != lane.last {
                    let (topic, partition, found) = (lane.topic.clone(), lane.partition, lane.last);
                    return Seen::Other(Mismatch::Plain(Violation::Progress { topic, partition, told, found }));
                }
                lane.compared = lane.compared.max(lane.until);
            }
        }
        Seen::Same
    }

    /// Where the next run continues.
    pub(super) fn cursor(&self, progress: &Progress) -> Cursor {
        let mut cursor = Cursor { incarnation: progress.incarnation, position: self.reached, ..Cursor::default() };
        for lane in self.lanes.values().flatten() {
            cursor.offsets.set(&lane.topic, lane.partition, lane.compared);
            cursor.positions.set(&lane.topic, lane.partition, lane.last);
        }
        cursor
    }
}

impl Lane {
    fn at(&self, offset: i64) -> At {
        At { topic: self.topic.clone(), partition: self.partition, offset }
    }

    /// Whether everything that the relay has written was read.
    pub(super) fn is_read(&self) -> bool {
        self.read >= self.until
    }

    /// Takes in a record, unless it lies beyond what is compared.
    pub(super) fn take(&mut self, record: &impl Message) {
        let offset = record.offset();
        if offset < self.read {
            return;
        }
        self.read = offset + 1;
        if offset < self.until {
            let found = Found::of(record);
            self.bytes += found.bytes();
            self.waiting.push_back(found);
        }
    }

    /// Whether `bytes` or more wait, or all is read.
    pub(super) fn holds(&self, bytes: usize) -> bool {
        !self.waiting.is_empty() && self.bytes >= bytes
    }

    pub(super) fn has_records(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn pass(&mut self) {
        let Some(found) = self.waiting.pop_front() else { return };
        self.bytes -= found.bytes();
        self.compared = found.offset + 1;
        if let Ok(Content { event, .. }) = &found.content {
            self.last = event.position;
        }
    }
}

/// What differs between an event and its record.
fn difference(event: &RecordedEvent, content: &Content, last: Position) -> Option<&'static str> {
    let Content { event: stored, claim, previous } = content;
    let other_payload = match claim {
        Some(claim) => claim.difference(&event.data.payload).is_some(),
        None => event.data.payload != stored.data.payload,
    };
    let differs = [
        ("id", event.id != stored.id),
        ("stream", event.stream != stored.stream),
        ("version", event.version != stored.version),
        ("type", event.data.name != stored.data.name),
        ("schema version", event.data.schema_version != stored.data.schema_version),
        ("payload", other_payload),
        ("metadata", event.metadata != stored.metadata),
        ("time", event.recorded_at != stored.recorded_at),
        ("event before it", last != *previous),
    ];
    differs.into_iter().find(|(_, differs)| *differs).map(|(field, _)| field)
}
