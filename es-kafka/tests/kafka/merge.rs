//! A merge delivers in exactly the order of the log.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use es_core::{
    EventOrder, EventStore, Position,
    backend::{Categories, Checkpoint, Shard, SourceError, Witness},
};
use es_kafka::{KafkaSourceConfig, Relay, RelayConfig};
use rdkafka::{Offset, TopicPartitionList, admin::AdminOptions};
use uuid::Uuid;

use crate::{
    reader::Reader,
    setup::{House, Running, admin},
};

fn small(house: &House) -> KafkaSourceConfig {
    KafkaSourceConfig { batch_events: 7, buffer_events: 5, ..house.source_config() }
}

fn merged(checkpoint: Checkpoint) -> BTreeMap<Shard, Checkpoint> {
    BTreeMap::from([(Shard::from("merged"), checkpoint)])
}

async fn written(house: &House, last: u64) {
    for round in 0.. {
        let category = ["order", "payment", "shipment"][round % 3];
        let appended = house.append(category, &format!("{}", round % 11), 1 + round % 5).await;
        if appended.position.get() >= last {
            return;
        }
    }
}

/// Able to lose: when a partition counts as complete up to the relay's progress without waiting for
/// the offsets that the progress names, it fails on a gap (and a reader of single categories, below,
/// loses events).
#[tokio::test(flavor = "multi_thread")]
async fn r9_a_merge_delivers_every_event_in_log_order_while_the_relay_runs() {
    let house = House::new();
    let config = RelayConfig { batch_events: 20, ..house.config() };
    let _relay = Running::start(Relay::new(house.store.clone(), config));
    let writers: Vec<_> = (0..3)
        .map(|_| {
            let house = house.clone();
            tokio::spawn(async move { written(&house, 600).await })
        })
        .collect();
    let mut reader = Reader::open(small(&house), Categories::All, EventOrder::PerKey, BTreeMap::new()).await;
    reader.read_to(Position::new(300)).await;
    for writer in writers {
        writer.await.unwrap();
    }
    let last = house.store.head().await.unwrap();
    reader.read_to(last).await;
    assert_eq!(reader.positions(), (1..=last.get()).collect::<Vec<_>>());
    reader.read_to_end().await;

    let stored = house.store.read_log(Position::ZERO, 10_000).await.unwrap();
    let read: Vec<_> = reader.events.into_iter().map(|(_, event)| event).collect();
    assert_eq!(read, stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn r9_a_merge_continues_at_every_checkpoint_without_loss_or_repetition() {
    let house = House::new();
    written(&house, 150).await;
    let last = house.store.head().await.unwrap();
    let config = RelayConfig { batch_events: 40, ..house.config() };
    let mut relay = Running::start(Relay::new(house.store.clone(), config));
    relay.reaches(last).await;

    let (mut checkpoints, mut positions) = (BTreeMap::new(), Vec::new());
    let categories = Categories::Only(vec!["order", "shipment"]);
    loop {
        let mut reader = Reader::open(small(&house), categories.clone(), EventOrder::PerKey, checkpoints).await;
        while reader.batches < 3 && reader.reached() < last {
            reader.step().await.unwrap();
        }
        positions.extend(reader.positions());
        checkpoints = reader.checkpoints;
        if checkpoints.values().all(|checkpoint| checkpoint.position >= last) {
            break;
        }
    }
    let stored = house.store.read_log(Position::ZERO, 10_000).await.unwrap();
    let wanted: Vec<_> = stored
        .iter()
        .filter(|event| categories.contains(event.stream.category()))
        .map(|event| event.position.get())
        .collect();
    assert_eq!(positions, wanted);
    // The checkpoint is good for the log as well: it names the event at its position.
    let checkpoint = checkpoints.into_values().next().unwrap();
    assert_eq!(checkpoint.witness, stored.last().map(Witness::of));
}

#[tokio::test(flavor = "multi_thread")]
async fn r12_a_merge_that_starts_at_the_end_says_so() {
    let house = House::new();
    house.append("order", "a", 12).await;
    let last = house.append("payment", "a", 12).await.position;
    let mut relay = Running::start(house.relay());
    relay.reaches(last).await;
    let mut reader = Reader::open(small(&house), Categories::All, EventOrder::PerKey, BTreeMap::new()).await;
    reader.read_to(last).await;
    let known = reader.checkpoints.into_values().next().unwrap();
    // Read from Kafka so far, or from the log.
    for end in [Checkpoint { cursor: None, ..known.clone() }, known] {
        let mut reader = Reader::open(small(&house), Categories::All, EventOrder::PerKey, merged(end.clone())).await;
        reader.read_to_end().await;
        assert_eq!((reader.checkpoints, reader.batches, reader.events), (merged(end), 1, vec![]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r12_a_merge_over_a_kafka_without_events_is_at_its_end() {
    let house = House::new();
    let _relay = Running::start(house.relay());
    let mut reader = Reader::open(small(&house), Categories::All, EventOrder::PerKey, BTreeMap::new()).await;
    reader.read_to_end().await;
    assert_eq!(reader.reached(), Position::ZERO);
    let last = house.append("order", "a", 12).await.position;
    reader.read_to(last).await;
    assert_eq!(reader.positions(), (1..=12).collect::<Vec<_>>());
}

/// Able to lose: librdkafka stops reading the topic, and a merge that takes this for news about a
/// connection waits for ever.
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_progress_topic_that_was_created_anew_is_an_error_and_not_silence() {
    let house = House::new();
    let last = house.append("order", "a", 12).await.position;
    let mut relay = Running::start(house.relay());
    relay.reaches(last).await;
    relay.stop().await.unwrap();
    let mut reader = Reader::open(small(&house), Categories::All, EventOrder::PerKey, BTreeMap::new()).await;
    reader.read_to_end().await;
    assert_eq!(reader.reached(), last);
    let topic = house.topics().progress();
    admin().delete_topics(&[&topic], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    house.create_topic(&topic, 1).await;
    let refused = reader.refusal().await;
    assert!(refused.is_transient(), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_a_category_that_comes_into_being_is_not_missed() {
    let house = House::new();
    let mut last = house.append("order", "a", 12).await.position;
    let _relay = Running::start(house.relay());
    let mut reader = Reader::open(house.source_config(), Categories::All, EventOrder::PerKey, BTreeMap::new()).await;
    reader.read_to(last).await;
    for category in ["payment", "shipment", "refund"] {
        house.append(category, "a", 3).await;
        last = house.append("order", "a", 3).await.position;
        reader.read_to(last).await;
    }
    assert_eq!(reader.positions(), (1..=last.get()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_that_was_fed_from_the_log_continues_from_kafka() {
    let house = House::new();
    house.append("order", "a", 12).await;
    let last = house.append("payment", "a", 12).await.position;
    let mut relay = Running::start(house.relay());
    relay.reaches(last).await;
    let middle = house.store.read_log(Position::new(14), 1).await.unwrap().remove(0);
    let folded = Checkpoint { position: middle.position, witness: Some(Witness::of(&middle)), cursor: None };
    let mut reader = Reader::open(small(&house), Categories::All, EventOrder::PerKey, merged(folded)).await;
    reader.read_to(last).await;
    assert_eq!(reader.positions(), (16..=24).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_another_history_is_refused() {
    let house = House::new();
    let last = house.append("order", "a", 12).await.position;
    let mut relay = Running::start(house.relay());
    relay.reaches(last).await;
    for position in [5, 12] {
        let event = house.store.read_log(Position::new(position - 1), 1).await.unwrap().remove(0);
        // Another event, or the same one written again at another time.
        let witness = match position {
            5 => Witness { event_id: Uuid::now_v7(), ..Witness::of(&event) },
            _ => Witness { recorded_at: event.recorded_at - TimeDelta::microseconds(1), ..Witness::of(&event) },
        };
        let foreign = Checkpoint { position: event.position, witness: Some(witness), cursor: None };
        let mut reader = Reader::open(small(&house), Categories::All, EventOrder::PerKey, merged(foreign)).await;
        let refused = reader.refusal().await;
        assert!(matches!(refused, SourceError::OtherHistory { .. }), "{refused:?}");
    }
    // Offsets beyond the end: the topic has lost what was read from it.
    let (topic, incarnation) = (house.topics().events("order"), house.progress(last).await.incarnation);
    let offsets = format!("{{\"{topic}\":{{\"0\":1000,\"1\":1000,\"2\":1000}}}}");
    let cursor = format!("{{\"incarnation\":\"{incarnation}\",\"offsets\":{offsets}}}");
    let beyond = Checkpoint { position: Position::new(5), witness: None, cursor: Some(cursor) };
    let mut reader = Reader::open(small(&house), Categories::All, EventOrder::PerKey, merged(beyond)).await;
    let refused = reader.refusal().await;
    assert!(matches!(refused, SourceError::Missing { .. }), "{refused:?}");
    // Offsets of another filling of the topic say nothing: the position does.
    let cursor = format!("{{\"incarnation\":\"{}\",\"offsets\":{offsets}}}", Uuid::now_v7());
    let filled_anew = Checkpoint { position: Position::new(5), witness: None, cursor: Some(cursor) };
    let mut reader = Reader::open(small(&house), Categories::All, EventOrder::PerKey, merged(filled_anew)).await;
    reader.read_to(last).await;
    assert_eq!(reader.positions(), (6..=12).collect::<Vec<_>>());
}

/// Seen to fail where a reader does not note that the first records are deleted: it said that events are missing.
#[tokio::test(flavor = "multi_thread")]
async fn r11_truncated_topics_are_an_error_and_not_a_jump() {
    let house = House::new();
    let last = house.append("order", "a", 12).await.position;
    let mut relay = Running::start(house.relay());
    relay.reaches(last).await;
    let progress = house.progress(last).await;
    let (topic, partition, next) = progress.offsets.iter().next().unwrap();
    let mut truncated = TopicPartitionList::new();
    truncated.add_partition_offset(topic, partition, Offset::Offset(next - 3)).unwrap();
    admin().delete_records(&truncated, &AdminOptions::new()).await.unwrap();
    for order in [EventOrder::PerKey, EventOrder::PerStream] {
        let only = Categories::Only(vec!["order"]);
        let mut reader = Reader::open(house.source_config(), only, order, BTreeMap::new()).await;
        let refused = reader.refusal().await;
        assert!(matches!(&refused, SourceError::Expired { place } if place.starts_with(topic)), "{refused:?}");
    }
}
