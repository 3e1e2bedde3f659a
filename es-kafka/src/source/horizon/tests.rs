#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

use std::collections::VecDeque;

use es_core::{EventData, Metadata, StreamId, Version, backend::Witness};
use rdkafka::{Message, message::OwnedMessage};

use super::*;
use crate::{offsets::PerPartition, record};

fn event(position: u64, category: &str) -> RecordedEvent {
    RecordedEvent {
        position: Position::new(position),
        stream: StreamId::new(category, "1").unwrap(),
        version: Version::new(1),
        id: Uuid::from_u128(u128::from(position)),
        recorded_at: chrono::DateTime::UNIX_EPOCH,
        metadata: Metadata::default(),
        data: EventData { name: "happened".into(), schema_version: 1, payload: bytes::Bytes::from_static(b"{}") },
    }
}

fn witness(id: u128) -> Witness {
    Witness { event_id: Uuid::from_u128(id), recorded_at: chrono::DateTime::UNIX_EPOCH }
}

/// A log in Kafka: records per partition, and the progress after each transaction.
#[derive(Default)]
struct Log {
    partitions: BTreeMap<(String, i32), VecDeque<(i64, RecordedEvent)>>,
    progress: VecDeque<Progress>,
    offsets: Offsets,
    positions: PerPartition<Position>,
    last: u64,
}

/// Where reading begins after a cursor, as the topics of a test are never truncated.
fn begin(cursor: Option<i64>) -> Begin {
    let floor = cursor.unwrap_or(0);
    Begin { offset: (floor - 1).max(0), search_until: floor, truncated: false, floor }
}

impl Log {
    /// The records of a partition from `offset` on.
    fn records(&self, topic: &str, partition: i32, offset: i64) -> VecDeque<OwnedMessage> {
        let mut previous = Position::ZERO;
        let all = self.partitions[&(topic.to_owned(), partition)].iter().map(|(offset, event)| {
            let before = std::mem::replace(&mut previous, event.position);
            record::published(event, topic, partition, *offset, before)
        });
        all.filter(|record| record.offset() >= offset).collect()
    }

    fn transaction(&mut self, events: usize, random: &mut fastrand::Rng) {
        for _ in 0..events {
            self.last += 1;
            let category = ["order", "payment", "shipment"][random.usize(..3)];
            let (topic, partition) = (format!("{category}-events"), random.i32(0..3));
            // Offsets have gaps: markers, aborted records.
            let offset = self.offsets.next(&topic, partition) + random.i64(0..3);
            self.offsets.set(&topic, partition, offset + 1);
            self.positions.set(&topic, partition, Position::new(self.last));
            let event = event(self.last, category);
            self.partitions.entry((topic, partition)).or_default().push_back((offset, event));
        }
        let Witness { event_id, recorded_at } = witness(u128::from(self.last));
        self.progress.push_back(Progress {
            incarnation: Uuid::nil(),
            positions: self.positions.clone(),
            partitions: BTreeMap::new(),
            targets: BTreeMap::new(),
            position: Position::new(self.last),
            head: Position::new(self.last + 2),
            event_id,
            recorded_at,
            offsets: self.offsets.clone(),
        });
    }
}

/// Reads `log` in a random interleaving of its partitions and its progress.
fn read(log: &mut Log, horizon: &mut Horizon, random: &mut fastrand::Rng, stop_after: usize) -> (Vec<u64>, Checkpoint) {
    let mut seen = Vec::new();
    let mut unread: BTreeMap<(String, i32), VecDeque<OwnedMessage>> = BTreeMap::new();
    loop {
        if random.bool()
            && let Some(progress) = log.progress.pop_front()
        {
            for Missing { topic, partition, cursor, .. } in horizon.missing(&progress).unwrap() {
                let begin = begin(cursor);
                horizon.add(&topic, partition, begin);
                let records = log.records(&topic, partition, begin.offset);
                unread.insert((topic, partition), records);
            }
            horizon.adopt(progress).unwrap();
        }
        let keys: Vec<_> = unread.keys().cloned().collect();
        if !keys.is_empty() {
            let (topic, partition) = &keys[random.usize(..keys.len())];
            if let Some(record) = unread.get_mut(&(topic.clone(), *partition)).unwrap().pop_front() {
                horizon.chain(topic, *partition).unwrap().take(&record).unwrap();
            }
        }
        horizon.newest = log.progress.is_empty();
        let most_bytes = if random.bool() { 1 } else { usize::MAX };
        if let Some(batch) = horizon.advance(7, most_bytes).unwrap() {
            // The event that reaches the limit ends the batch.
            assert!(batch.events.len() <= if most_bytes == 1 { 1 } else { 7 });
            seen.extend(batch.events.iter().map(|event| event.position.get()));
            let at_end = log.progress.is_empty() && batch.checkpoint.position.get() == log.last;
            let checkpoint = batch.checkpoint;
            assert_eq!(at_end, batch.end.is_some() && log.progress.is_empty());
            if at_end || seen.len() >= stop_after {
                return (seen, checkpoint);
            }
        }
    }
}

fn twenty_transactions(random: &mut fastrand::Rng) -> Log {
    let mut log = Log::default();
    for _ in 0..20 {
        let events = random.usize(1..12);
        log.transaction(events, random);
    }
    log
}

#[test]
fn any_interleaving_of_partitions_and_progress_is_delivered_in_log_order() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut log = twenty_transactions(&mut random);
        let mut horizon = Horizon::new(Topics::new(""), Categories::All, &Checkpoint::default()).unwrap();
        let (seen, _) = read(&mut log, &mut horizon, &mut random, usize::MAX);
        assert_eq!(seen, (1..=log.last).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[test]
fn a_reader_continues_at_any_checkpoint_without_loss_or_repetition() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut log = twenty_transactions(&mut random);
        let only = Categories::Only(vec!["order", "shipment"]);
        let kept = log.progress.clone();
        let mut horizon = Horizon::new(Topics::new(""), only.clone(), &Checkpoint::default()).unwrap();
        let (mut seen, checkpoint) = read(&mut log, &mut horizon, &mut random, 30);
        // After compaction only the last progress is left.
        log.progress = kept.into_iter().skip(19).collect();
        let mut horizon = Horizon::new(Topics::new(""), only, &checkpoint).unwrap();
        if checkpoint.position.get() < log.last {
            let (more, _) = read(&mut log, &mut horizon, &mut random, usize::MAX);
            seen.extend(more);
        }
        let all = log.partitions.values().flatten().map(|(_, event)| event);
        let mut wanted: Vec<u64> =
            all.filter(|event| event.stream.category() != "payment").map(|event| event.position.get()).collect();
        wanted.sort_unstable();
        assert_eq!(seen, wanted, "seed {seed}");
    }
}

#[test]
fn r3_a_hole_in_the_log_is_an_alarm_for_a_reader_of_all_categories() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut log = Log::default();
    log.transaction(50, &mut random);
    for records in log.partitions.values_mut() {
        records.retain(|(_, event)| event.position != Position::new(20));
    }
    let mut horizon = Horizon::new(Topics::new(""), Categories::All, &Checkpoint::default()).unwrap();
    let progress = log.progress.pop_front().unwrap();
    for Missing { topic, partition, .. } in horizon.missing(&progress).unwrap() {
        horizon.add(&topic, partition, begin(None));
    }
    horizon.adopt(progress).unwrap();
    for (topic, partition) in log.partitions.keys() {
        for record in log.records(topic, *partition, 0) {
            horizon.chain(topic, *partition).unwrap().take(&record).unwrap();
        }
    }
    let gap = horizon.advance(100, usize::MAX).unwrap_err();
    assert!(matches!(gap, SourceError::Read(ReadError::Gap { .. })), "{gap:?}");
}

#[test]
fn r12_the_end_is_said_once_and_only_when_the_newest_progress_is_known() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut log = Log::default();
    log.transaction(3, &mut random);
    let end = Checkpoint { position: Position::new(3), witness: Some(witness(3)), cursor: None };
    let mut horizon = Horizon::new(Topics::new(""), Categories::All, &end).unwrap();
    horizon.adopt(log.progress.pop_front().unwrap()).unwrap();
    assert!(horizon.end().is_none(), "an older progress would look just like this");
    horizon.newest = true;
    let batch = horizon.end().unwrap();
    assert!(batch.end == Some(Position::new(5)) && batch.events.is_empty() && batch.checkpoint == end, "{batch:?}");
    assert!(horizon.end().is_none());
    log.transaction(1, &mut random);
    horizon.said_end = false;
    horizon.adopt(log.progress.pop_front().unwrap()).unwrap();
    assert!(horizon.end().is_none(), "there is an event that was not delivered");
}

/// What is built from here on would wait for an end that does not come. (Seen to fail where any progress is adopted.)
#[test]
fn r12_a_reader_begins_anew_when_the_log_has_lost_the_end_that_it_was_told_of() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut log = Log::default();
    log.transaction(3, &mut random);
    let progress = log.progress.pop_front().unwrap();
    let mut horizon = Horizon::new(Topics::new(""), Categories::All, &Checkpoint::default()).unwrap();
    horizon.adopt(progress.clone()).unwrap();
    horizon.adopt(progress.clone()).unwrap();
    let lost = horizon.adopt(Progress { head: progress.position, ..progress.clone() });
    assert!(matches!(&lost, Err(error) if error.is_transient()), "{lost:?}");
    horizon.adopt(Progress { head: progress.position, incarnation: Uuid::max(), ..progress }).unwrap();
}

#[test]
fn another_event_at_the_folded_position_is_another_history() {
    let folded = Checkpoint { position: Position::new(3), witness: Some(witness(99)), cursor: None };
    let mut random = fastrand::Rng::with_seed(1);
    let mut log = Log::default();
    log.transaction(3, &mut random);
    let mut horizon = Horizon::new(Topics::new(""), Categories::All, &folded).unwrap();
    let refused = horizon.adopt(log.progress.pop_front().unwrap());
    assert!(matches!(refused, Err(SourceError::OtherHistory { .. })), "{refused:?}");
    let mut chain = Chain::new("order-events", 0, begin(None), Mark::of(&folded));
    let refused = chain.take(&record::published(&event(3, "order"), "order-events", 0, 0, Position::new(2)));
    assert!(matches!(refused, Err(SourceError::OtherHistory { .. })), "{refused:?}");
}
