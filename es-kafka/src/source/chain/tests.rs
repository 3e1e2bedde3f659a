#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

use es_core::{EventData, Metadata, StreamId, Version};
use rdkafka::message::OwnedMessage;
use uuid::Uuid;

use super::*;
use crate::{record, source::mark::Written};

const TOPIC: &str = "order-events";

fn record(offset: i64, position: u64, previous: u64) -> OwnedMessage {
    let event = RecordedEvent {
        position: Position::new(position),
        stream: StreamId::new("order", "1").unwrap(),
        version: Version::new(position),
        id: Uuid::from_u128(u128::from(position)),
        recorded_at: chrono::DateTime::UNIX_EPOCH,
        metadata: Metadata::default(),
        data: EventData { name: "happened".into(), schema_version: 1, payload: bytes::Bytes::from_static(b"{}") },
    };
    record::published(&event, TOPIC, 0, offset, Position::new(previous))
}

/// A record that cannot be read.
fn poison(offset: i64) -> OwnedMessage {
    let value = Some(b"?".to_vec());
    OwnedMessage::new(value, None, TOPIC.to_owned(), rdkafka::Timestamp::NotAvailable, 0, offset, None)
}

fn mark(position: u64) -> Mark {
    Mark { position: Position::new(position), witness: None }
}

fn written(next: i64, last: u64, published: u64) -> Written {
    Written { next: Some(next), last: Position::new(last), published: mark(published) }
}

/// Reads from the first record on.
fn fresh() -> Chain {
    Chain::new(TOPIC, 0, Begin::default(), Mark::default())
}

/// Reads after `position`, to which the read model was rebuilt from the log.
fn rebuilt(position: u64, search_until: i64) -> Chain {
    Chain::new(TOPIC, 0, Begin { search_until, ..Begin::default() }, mark(position))
}

fn positions(chain: &mut Chain, written: Written) -> Vec<u64> {
    let ready = chain.ready(written);
    std::iter::from_fn(|| chain.pop()).take(ready).map(|event| event.position.get()).collect()
}

#[test]
fn r11_an_event_is_handed_on_once_the_next_one_or_the_progress_names_it() {
    let mut chain = fresh();
    for (offset, position, previous) in [(0, 3, 0), (1, 5, 3), (3, 6, 5)] {
        chain.take(&record(offset, position, previous)).unwrap();
    }
    let before = written(2, 5, 5);
    chain.check(before).unwrap();
    assert_eq!(chain.ready(before), 2);
    let all = written(4, 6, 7);
    chain.check(all).unwrap();
    assert_eq!(positions(&mut chain, all), [3, 5, 6]);
    assert_eq!((chain.complete(all).position, chain.cursor()), (Position::new(7), 4));
}

#[test]
fn r11_a_hole_is_an_error_that_names_the_place() {
    let mut chain = fresh();
    chain.take(&record(0, 3, 0)).unwrap();
    let error = chain.take(&record(2, 6, 5)).unwrap_err();
    assert!(matches!(&error, SourceError::Missing { place, .. } if place == "order-events/0 offset 2"), "{error}");
    // At the end of the partition, where no record follows.
    let mut chain = fresh();
    chain.take(&record(0, 3, 0)).unwrap();
    chain.take(&record(1, 4, 3)).unwrap();
    let error = chain.check(written(2, 5, 5)).unwrap_err();
    assert!(matches!(&error, SourceError::Foreign { .. }), "{error}");
    let mut chain = Chain::new(TOPIC, 0, Begin { offset: 3, ..Begin::default() }, mark(1));
    let error = chain.check(written(3, 5, 5)).unwrap_err();
    assert!(matches!(&error, SourceError::Missing { .. }), "{error}");
}

/// A well-formed copy of an event under another position: seen to be handed on when the next record alone, or the
/// offset alone, vouched for it.
#[test]
fn r11_a_foreign_record_is_never_handed_on_and_the_error_names_it() {
    for (position, previous) in [(500, 3), (500, 1), (4, 3)] {
        let mut chain = fresh();
        chain.take(&record(0, 3, 0)).unwrap();
        let error = chain.take(&record(1, position, previous)).and_then(|()| {
            assert_eq!(chain.ready(written(3, 600, 600)), 1, "the event before it");
            chain.take(&record(2, 600, 3))
        });
        let error = error.unwrap_err();
        let named = matches!(&error, SourceError::Foreign { place, .. } if place == "order-events/0 offset 1");
        assert!(named, "{error}");
    }
    // After everything that the relay has written, at a position that it has passed.
    let mut chain = fresh();
    chain.take(&record(0, 3, 0)).unwrap();
    chain.take(&record(1, 500, 3)).unwrap();
    let error = chain.check(written(1, 3, 600)).unwrap_err();
    assert!(matches!(&error, SourceError::Foreign { .. }), "{error}");
    // Beyond it: only the progress tells.
    let mut chain = fresh();
    chain.take(&record(0, 500, 0)).unwrap();
    chain.check(written(0, 0, 3)).unwrap();
    assert_eq!(chain.ready(written(0, 0, 3)), 0);
    let error = chain.cover(0, None).unwrap_err();
    assert!(matches!(&error, SourceError::Foreign { .. }), "{error}");
}

#[test]
fn r11_what_is_known_after_a_rebuild_is_passed_also_where_it_cannot_be_read() {
    // Poison and a future position between known events, and directly before the first new one.
    let mut chain = rebuilt(5, 8);
    for record in [
        record(0, 3, 0),
        poison(1),
        record(2, 500, 3),
        record(3, 5, 3),
        record(4, 500, 5),
        poison(5),
        record(6, 7, 5),
        record(7, 8, 7),
    ] {
        chain.take(&record).unwrap();
    }
    let all = written(8, 8, 8);
    chain.check(all).unwrap();
    assert_eq!(positions(&mut chain, all), [7, 8]);
    // After all that the relay has written: passed once, with the checkpoint.
    let mut chain = rebuilt(5, 3);
    for record in [record(0, 5, 3), poison(1), record(2, 500, 1)] {
        chain.take(&record).unwrap();
    }
    chain.check(written(1, 5, 5)).unwrap();
    chain.cover(2, None).unwrap();
    assert_eq!((chain.is_empty(), chain.cursor()), (true, 3));
}

#[test]
fn r11_a_foreign_record_that_was_passed_is_passed_again_after_a_restart() {
    // A model that was rebuilt from the log has passed offset 20, and its cursor is after it.
    let begin = Begin { offset: 20, search_until: 21, truncated: false, floor: 21 };
    let mut chain = Chain::new(TOPIC, 0, begin, mark(70));
    chain.take(&record(20, 500, 60)).unwrap();
    chain.take(&record(21, 71, 60)).unwrap();
    let written = written(22, 71, 71);
    chain.check(written).unwrap();
    assert_eq!((positions(&mut chain, written), chain.cursor()), (vec![71], 22));
}

#[test]
fn r11_a_foreign_record_does_not_take_the_place_of_the_last_event() {
    // It names the same event before it as the relay's last event does, which is new to the reader.
    let mut chain = rebuilt(5, 2);
    for record in [record(0, 7, 5), record(1, 500, 5)] {
        chain.take(&record).unwrap();
    }
    let written = written(1, 7, 9);
    chain.check(written).unwrap();
    assert_eq!(chain.complete(written).position, Position::new(5), "the event at position 7 was not read");
    chain.cover(1, None).unwrap();
    let error = chain.check(written).unwrap_err();
    assert!(matches!(error, SourceError::Missing { .. }), "{error}");
}

#[test]
fn r18_a_partition_that_passes_what_is_known_does_not_stand_still() {
    let mut chain = rebuilt(5, 4);
    assert!(!chain.passes());
    chain.take(&record(0, 3, 0)).unwrap();
    assert!(chain.passes() && !chain.passes());
    for record in [record(1, 5, 3), record(4, 6, 5)] {
        chain.take(&record).unwrap();
    }
    assert!(!chain.passes(), "what is new is handed on, and shows by that");
}

#[test]
fn r11_poison_that_is_new_is_an_error_after_a_rebuild_too() {
    // The relay's own event at position 7 cannot be read.
    let mut chain = rebuilt(5, 4);
    chain.take(&record(0, 5, 3)).unwrap();
    chain.take(&poison(1)).unwrap();
    chain.take(&record(2, 8, 7)).unwrap();
    let error = chain.take(&record(3, 9, 8)).unwrap_err();
    let named = matches!(&error, SourceError::Damaged { place, .. } if place == "order-events/0 offset 1");
    assert!(named, "{error}");
    // The last one.
    let mut chain = rebuilt(5, 2);
    chain.take(&record(0, 5, 3)).unwrap();
    chain.take(&poison(1)).unwrap();
    let error = chain.check(written(2, 7, 7)).unwrap_err();
    assert!(matches!(&error, SourceError::Damaged { .. }), "{error}");
    // What comes later than the rebuild is not passed.
    let mut chain = rebuilt(5, 1);
    chain.take(&record(0, 5, 3)).unwrap();
    let error = chain.take(&poison(1)).unwrap_err();
    assert!(matches!(&error, SourceError::Damaged { .. }), "{error}");
}
