//! The comparison without a broker.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

use std::collections::BTreeMap;

use chrono::DateTime;
use es_core::{EventData, Metadata, Position, RecordedEvent, StreamId, Version};
use rdkafka::{Message, message::OwnedMessage};
use uuid::Uuid;

use super::{
    Cursor, Violation,
    compare::{At, Compare, Mismatch, Seen},
    judge::Evidence,
};
use crate::{
    partitioner,
    progress::Progress,
    record::{Heading, published},
    topics::Topics,
};

const PARTITIONS: i32 = 3;
const TOPIC: &str = "order-events";

fn event(position: u64) -> RecordedEvent {
    RecordedEvent {
        position: Position::new(position),
        stream: StreamId::new("order", &(position % 7).to_string()).unwrap(),
        version: Version::new(position / 7 + 1),
        id: Uuid::from_u128(u128::from(position)),
        recorded_at: DateTime::from_timestamp_micros(i64::try_from(position).unwrap()).unwrap(),
        metadata: Metadata::default(),
        data: EventData {
            name: "order.happened".into(),
            schema_version: 1,
            payload: format!("{{\"n\":{position}}}").into(),
        },
    }
}

fn partition_of(event: &RecordedEvent) -> i32 {
    partitioner::partition(event.stream.as_str().as_bytes(), PARTITIONS)
}

/// A log, and what stands in Kafka.
struct House {
    log: Vec<RecordedEvent>,
    records: Vec<OwnedMessage>,
    progress: Progress,
}

impl House {
    fn new(count: u64) -> Self {
        let log: Vec<_> = (1..=count).map(event).collect();
        let mut house = Self { log: log.clone(), records: Vec::new(), progress: Progress::nothing(Uuid::nil()) };
        for event in &log {
            house.write(event, partition_of(event));
        }
        let position = Position::new(count);
        house.progress = Progress { incarnation: Uuid::now_v7(), position, ..house.progress };
        house.progress.partitions = BTreeMap::from([(TOPIC.to_owned(), PARTITIONS)]);
        house
    }

    /// As the relay writes it.
    fn write(&mut self, event: &RecordedEvent, partition: i32) {
        let previous = self.progress.positions.set(TOPIC, partition, event.position).unwrap_or_default();
        self.put(event, partition, previous);
    }

    fn put(&mut self, event: &RecordedEvent, partition: i32, previous: Position) {
        let offset = self.progress.offsets.next(TOPIC, partition);
        self.records.push(published(event, TOPIC, partition, offset, previous));
        self.progress.offsets.advance(TOPIC, partition, offset + 1);
    }

    /// Reads everything at once, and compares it.
    fn violation(&self) -> Option<Violation> {
        self.continued(&Cursor::default()).1
    }

    fn continued(&self, cursor: &Cursor) -> (Cursor, Option<Violation>) {
        let mut compare = Compare::new(Topics::new(""), &self.progress, cursor);
        for record in &self.records {
            compare.of(TOPIC, record.partition()).unwrap().take(record);
        }
        compare.lanes().for_each(|lane| lane.read = lane.until);
        for event in self.log.iter().filter(|event| event.position > cursor.position) {
            match compare.expect(event) {
                Seen::Same => {}
                Seen::Nothing { .. } | Seen::Elsewhere { .. } => panic!("everything is read"),
                Seen::Other(mismatch) => {
                    return (compare.cursor(&self.progress), Some(self.judged(&compare, mismatch)));
                }
            }
        }
        let rest = match compare.rest(&self.progress) {
            Seen::Same => None,
            Seen::Nothing { .. } | Seen::Elsewhere { .. } => panic!("everything is read"),
            Seen::Other(mismatch) => Some(self.judged(&compare, mismatch)),
        };
        (compare.cursor(&self.progress), rest)
    }

    fn judged(&self, compare: &Compare, mismatch: Mismatch) -> Violation {
        let claimed = mismatch.claimed();
        let logged = self.log.iter().find(|event| Some(event.position) == claimed).cloned();
        let logged = logged.map(|event| {
            let place = compare.place(&event);
            (event, place)
        });
        let wanted = mismatch.wanted().map(|wanted| wanted.position);
        let has = |record: &&OwnedMessage| Heading::claimed(*record).is_ok_and(|found| Some(found.position) == wanted);
        let at = |record: &OwnedMessage| At {
            topic: TOPIC.to_owned(),
            partition: record.partition(),
            offset: record.offset(),
        };
        let elsewhere = self.records.iter().filter(has).map(at).collect();
        mismatch.judge(Evidence { logged, elsewhere }, self.progress.position)
    }

    /// A record of a partition by its offset, to be made another one.
    fn record(&mut self, position: u64) -> &mut OwnedMessage {
        let position = Position::new(position);
        self.records
            .iter_mut()
            .find(|record| Heading::claimed(*record).is_ok_and(|found| found.position == position))
            .unwrap()
    }

    /// Leaves a record out, as if it had been aborted.
    fn remove(&mut self, position: u64) {
        let position = Position::new(position);
        self.records.retain(|record| Heading::claimed(record).is_ok_and(|found| found.position != position));
    }
}

#[test]
fn r10_kafka_that_holds_the_log_is_clean_and_the_next_run_continues() {
    let mut house = House::new(100);
    let (cursor, violation) = house.continued(&Cursor::default());
    assert_eq!((violation, cursor.position), (None, Position::new(100)));
    let more = event(101);
    house.log.push(more.clone());
    house.write(&more, partition_of(&more));
    house.progress = Progress { position: more.position, ..house.progress };
    assert!(cursor.fits(&house.progress));
    // What was compared is not read again.
    house.records.retain(|record| record.offset() >= cursor.offsets.next(TOPIC, record.partition()));
    assert_eq!(house.records.len(), 1);
    let (cursor, violation) = house.continued(&cursor);
    assert_eq!((violation, cursor.position), (None, Position::new(101)));
    assert!(!Cursor { incarnation: Uuid::now_v7(), ..cursor.clone() }.fits(&house.progress));
    assert!(!Cursor { position: Position::new(102), ..cursor }.fits(&house.progress));
}

#[test]
fn r10_a_missing_event_is_named_also_at_the_end_of_its_partition() {
    for position in [1, 50, 100] {
        let mut house = House::new(100);
        house.remove(position);
        let found = house.violation();
        let partition = partition_of(&event(position));
        let missing = Violation::Missing { position: Position::new(position), topic: TOPIC.into(), partition };
        assert_eq!(found, Some(missing));
        let (cursor, _) = house.continued(&Cursor::default());
        assert_eq!(cursor.position, Position::new(position - 1), "the next run finds it again");
    }
}

#[test]
fn r10_a_repeated_event_is_named_also_after_the_last_one() {
    let mut house = House::new(100);
    let again = event(50);
    house.put(&again, partition_of(&again), Position::new(99));
    let found = house.violation();
    assert!(matches!(&found, Some(Violation::Repeated { position, .. }) if position.get() == 50), "{found:?}");
    let more = event(101);
    house.log.push(more.clone());
    house.write(&more, partition_of(&more));
    house.progress.position = more.position;
    let found = house.violation();
    assert!(matches!(&found, Some(Violation::Repeated { position, .. }) if position.get() == 50), "{found:?}");
}

#[test]
fn r10_events_of_one_partition_in_another_order_are_named() {
    let mut house = House::new(0);
    let log: Vec<_> = (1..=21).map(event).collect();
    // 8 and 15 have one stream.
    for position in (1..8).chain([15]).chain(8..15).chain(16..=21) {
        let event = &log[usize::try_from(position - 1).unwrap()];
        house.write(event, partition_of(event));
    }
    house.log = log;
    house.progress.position = Position::new(21);
    let found = house.violation();
    let named = |violation: &Violation| matches!(violation, Violation::OutOfOrder { before, .. } if before.get() == 15);
    assert!(found.as_ref().is_some_and(named), "{found:?}");
}

#[test]
fn r10_another_content_is_named_by_its_field_and_not_repeated() {
    type Change = fn(&mut RecordedEvent);
    let changes: [(&str, Change); 8] = [
        ("id", |event| event.id = Uuid::nil()),
        ("stream", |event| event.stream = StreamId::new("order", "geheim").unwrap()),
        ("version", |event| event.version = Version::new(99)),
        ("type", |event| event.data.name = "geheim".into()),
        ("schema version", |event| event.data.schema_version = 2),
        ("payload", |event| event.data.payload = "\"geheim\"".into()),
        ("metadata", |event| event.metadata.actor = Some("geheim".into())),
        ("time", |event| event.recorded_at = DateTime::UNIX_EPOCH),
    ];
    for (name, change) in changes {
        let mut house = House::new(100);
        let mut other = event(50);
        change(&mut other);
        let record = house.record(50);
        let previous = Heading::claimed(record).unwrap().previous;
        *record = published(&other, TOPIC, record.partition(), record.offset(), previous);
        let found = house.violation().expect("it differs");
        assert!(matches!(&found, Violation::Content { field, .. } if field == name), "{name}: {found:?}");
        assert!(!format!("{found} {found:?}").contains("geheim"));
    }
    let mut house = House::new(100);
    let record = house.record(50);
    *record = published(&event(50), TOPIC, record.partition(), record.offset(), Position::new(1));
    let found = house.violation();
    assert!(matches!(&found, Some(Violation::Content { field, .. }) if field == "event before it"), "{found:?}");
}

#[test]
fn r10_a_foreign_record_is_named_wherever_it_is() {
    let mut house = House::new(100);
    let mut foreign = event(500);
    house.put(&foreign, 1, Position::new(100));
    let found = house.violation();
    assert!(matches!(&found, Some(Violation::Foreign { partition: 1, .. })), "{found:?}");

    let mut house = House::new(100);
    foreign.position = Position::new(77);
    let partition = partition_of(&event(50));
    let record = house.record(50);
    *record = published(&foreign, TOPIC, partition, record.offset(), Position::ZERO);
    let found = house.violation();
    assert!(matches!(&found, Some(Violation::Foreign { .. })), "{found:?}");

    let mut house = House::new(100);
    let record = house.record(50);
    let (partition, offset) = (record.partition(), record.offset());
    *record = OwnedMessage::new(None, None, TOPIC.into(), rdkafka::Timestamp::NotAvailable, partition, offset, None);
    let found = house.violation();
    assert_eq!(found, Some(At { topic: TOPIC.into(), partition, offset }.foreign("there are no headers")));
}

#[test]
fn r10_an_event_in_the_wrong_partition_is_named_with_the_right_one() {
    let mut house = House::new(0);
    house.log = (1..=100).map(event).collect();
    for event in house.log.clone() {
        let right = partition_of(&event);
        house.write(&event, if event.position.get() == 50 { (right + 1) % PARTITIONS } else { right });
    }
    house.progress.position = Position::new(100);
    let right = partition_of(&event(50));
    let found = house.violation();
    let named = |violation: &Violation| matches!(violation, Violation::Partition { position, expected, .. } if position.get() == 50 && *expected == right);
    assert!(found.as_ref().is_some_and(named), "{found:?}");
}

#[test]
fn r10_a_progress_that_tells_of_another_last_event_is_named() {
    let mut house = House::new(100);
    house.progress.positions.set(TOPIC, partition_of(&event(100)), Position::new(99));
    let found = house.violation();
    assert!(matches!(&found, Some(Violation::Progress { .. })), "{found:?}");
}
