//! Readers check what they read: each event names the one before it, and the relay's progress the last one.

use std::collections::BTreeMap;

use es_core::{
    EventOrder, EventStore, Position, RecordedEvent,
    backend::{Categories, Checkpoint, EventSource, Shard, SourceError, Witness},
};
use es_kafka::{KafkaSource, headers};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier},
    message::{Headers, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};

use crate::{
    raw::{NOT_UTF8, produce},
    reader::{Reader, subscription},
    setup::{House, PATIENCE, Running, admin, brokers, open_transaction},
};

const ORDERS: [EventOrder; 2] = [EventOrder::PerKey, EventOrder::PerStream];

fn orders() -> Categories {
    Categories::Only(vec!["order"])
}

/// Twelve events in one partition, and a house whose relay has stopped.
async fn twelve() -> (House, Running, String, i32) {
    let house = House::new();
    let last = house.append("order", "a", 12).await.position;
    let mut relay = Running::start(house.relay());
    relay.reaches(last).await;
    let progress = house.progress(last).await;
    let (topic, partition, _) = progress.offsets.iter().next().unwrap();
    let (topic, partition) = (topic.to_owned(), partition);
    (house, relay, topic, partition)
}

/// Writes a record as no relay would, and returns where it is.
async fn write(topic: &str, partition: i32, value: &'static str, headers: Option<OwnedHeaders>) {
    let topic = topic.to_owned();
    let written = tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers()).create().unwrap();
        let mut record = BaseRecord::to(&topic).partition(partition).key("order-a").payload(value);
        if let Some(headers) = headers {
            record = record.headers(headers);
        }
        producer.send(record).unwrap();
        producer.flush(PATIENCE).unwrap();
    });
    written.await.unwrap();
}

fn moved(event: &RecordedEvent, position: u64, previous: u64) -> OwnedHeaders {
    headers(&RecordedEvent { position: Position::new(position), ..event.clone() }, "/else", Position::new(previous))
}

/// What each shard has, when the log was folded up to `event` without Kafka.
fn folded(house: &House, order: EventOrder, event: &RecordedEvent) -> BTreeMap<Shard, Checkpoint> {
    let checkpoint = Checkpoint { position: event.position, witness: Some(Witness::of(event)), cursor: None };
    let shards = match order {
        EventOrder::PerKey => vec![Shard::from("merged")],
        EventOrder::PerStream => (0..3).map(|n| Shard::partition(house.topics().events("order"), n)).collect(),
    };
    shards.into_iter().map(|shard| (shard, checkpoint.clone())).collect()
}

/// A new database beside old topics: the relay refuses them too, but readers might have folded them before.
#[tokio::test(flavor = "multi_thread")]
async fn r3_readers_refuse_topics_that_another_log_has_filled() {
    let (house, ..) = twelve().await;
    let (shorter, other) = (House::new(), House::new());
    shorter.append("order", "a", 1).await;
    other.append("order", "a", 20).await;
    for order in ORDERS {
        let source = KafkaSource::new(house.source_config());
        for log in [&shorter, &other] {
            let refused =
                source.clone().of_log(log.store.clone()).open(&subscription(orders(), order)).await.unwrap_err();
            let told = refused.to_string();
            let names = told.contains(&house.topics().progress()) && told.contains("at position 12");
            assert!(matches!(refused, SourceError::Unfit { .. }) && names, "{told}");
        }
        source.of_log(house.store.clone()).open(&subscription(orders(), order)).await.unwrap();
        // Before the first relay has published anything, there is nothing to compare.
        KafkaSource::new(other.source_config())
            .of_log(other.store.clone())
            .open(&subscription(orders(), order))
            .await
            .unwrap();
    }
}

/// Seen to fail where a reader does not check what each record names: the foreign record is folded, and every later
/// event of its partition is dropped as known.
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_well_formed_record_with_a_future_position_is_an_error_that_names_it_and_is_never_folded() {
    for previous in [12, 3] {
        let (house, mut relay, topic, partition) = twelve().await;
        let event = house.store.read_log(Position::new(11), 1).await.unwrap().remove(0);
        write(&topic, partition, "{}", Some(moved(&event, 500, previous))).await;
        for (round, order) in [0, 0, 1, 1].into_iter().zip([ORDERS, ORDERS].concat()) {
            if round == 1 && order == EventOrder::PerKey {
                // The relay continues: its later events do not make the foreign one valid.
                let last = house.append("order", "a", 12).await.position;
                relay.reaches(last).await;
            }
            let mut reader = Reader::open(house.source_config(), orders(), order, BTreeMap::new()).await;
            let refused = reader.refusal().await;
            let named = matches!(&refused, SourceError::Foreign { place, .. } if place.starts_with(&format!("{topic}/{partition} offset ")));
            assert!(named, "{order:?} {previous}: {refused:?}");
            assert!(reader.positions().iter().all(|position| *position <= 12), "{:?}", reader.positions());
        }
    }
}

/// Seen to fail where a fresh cursor begins at the first record: the same record stopped the reader again.
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_model_that_was_rebuilt_from_the_log_continues_after_damaged_records_and_truncated_heads() {
    for truncated in [false, true] {
        let (house, mut relay, topic, partition) = twelve().await;
        write(&topic, partition, "?", None).await;
        let event = house.store.read_log(Position::new(11), 1).await.unwrap().remove(0);
        write(&topic, partition, "{}", Some(moved(&event, 500, 12))).await;
        for order in ORDERS {
            let mut reader = Reader::open(house.source_config(), orders(), order, BTreeMap::new()).await;
            let refused = reader.refusal().await;
            assert!(matches!(&refused, SourceError::Damaged { .. }), "{refused:?}");
        }
        let last = house.append("order", "a", 3).await.position;
        relay.reaches(last).await;
        let rebuilt = house.store.read_log(Position::new(13), 1).await.unwrap().remove(0);
        let mut last = house.append("order", "a", 3).await.position;
        relay.reaches(last).await;
        if truncated {
            let mut head = TopicPartitionList::new();
            head.add_partition_offset(&topic, partition, Offset::Offset(6)).unwrap();
            admin().delete_records(&head, &AdminOptions::new()).await.unwrap();
        }
        for order in ORDERS {
            let checkpoints = folded(&house, order, &rebuilt);
            let mut reader = Reader::open(house.source_config(), orders(), order, checkpoints).await;
            reader.read_to(last).await;
            assert_eq!(reader.positions(), (15..=last.get()).collect::<Vec<_>>(), "{order:?}");
            // And again from the checkpoints that this made, when the group has no other member.
            let checkpoints = reader.into_checkpoints();
            last = house.append("order", "a", 1).await.position;
            relay.reaches(last).await;
            let mut reader = Reader::open(house.source_config(), orders(), order, checkpoints).await;
            reader.read_to(last).await;
            assert_eq!(reader.positions(), [last.get()]);
        }
    }
}

/// The client panics at it: where that is not caught, the thread of the reader ends, and each new one comes to the same record.
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_record_with_a_header_name_that_is_not_utf8_is_damaged_and_named() {
    let (house, _relay, topic, partition) = twelve().await;
    let event = house.store.read_log(Position::new(11), 1).await.unwrap().remove(0);
    let own = moved(&event, 13, 12);
    let mut headers: Vec<_> =
        own.iter().map(|header| (header.key.as_bytes(), header.value.unwrap_or_default())).collect();
    headers.insert(3, (NOT_UTF8, b"hunter2"));
    let offset = produce(&topic, partition, "order-a", &headers, "{}");
    for order in ORDERS {
        let mut reader = Reader::open(house.source_config(), orders(), order, BTreeMap::new()).await;
        let refused = reader.refusal().await;
        let SourceError::Damaged { place, reason } = &refused else { panic!("{order:?}: {refused:?}") };
        assert_eq!(*place, format!("{topic}/{partition} offset {offset}"));
        assert_eq!(reason, "the name of its header 4 is not UTF-8");
    }
}

/// A checkpoint that is the log's end, with the damaged record after everything that the relay has written. Seen to fail where a
/// fresh cursor begins at the first record.
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_model_at_the_end_of_the_log_passes_a_damaged_record_after_the_last_event() {
    let (house, mut relay, topic, partition) = twelve().await;
    write(&topic, partition, "?", None).await;
    let rebuilt = house.store.read_log(Position::new(11), 1).await.unwrap().remove(0);
    for order in ORDERS {
        let before = house.store.head().await.unwrap();
        let mut reader = Reader::open(house.source_config(), orders(), order, folded(&house, order, &rebuilt)).await;
        reader.read_to_end().await;
        let last = house.append("order", "a", 2).await.position;
        relay.reaches(last).await;
        reader.read_to(last).await;
        assert_eq!(reader.positions(), (13..=last.get()).collect::<Vec<_>>(), "{order:?} {before}");
    }
}

/// Seen to fail where the source is opened without a look at the settings.
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_compacted_topic_is_refused_by_readers() {
    let (house, _relay, topic, _) = twelve().await;
    let compact = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("cleanup.policy", "compact");
    admin().alter_configs([&compact], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    for order in ORDERS {
        let refused = Reader::refused_at_once(house.source_config(), orders(), order).await;
        assert!(matches!(&refused, SourceError::Unfit { place, .. } if *place == topic), "{refused:?}");
    }
}

/// Seen to fail where partitions are listed without a look at how many there were: nothing was refused.
#[tokio::test(flavor = "multi_thread")]
async fn r11_another_number_of_partitions_is_refused_by_readers() {
    let (house, _relay, topic, _) = twelve().await;
    admin().create_partitions([&NewPartitions::new(&topic, 7)], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    for order in ORDERS {
        let mut reader = Reader::open(house.source_config(), orders(), order, BTreeMap::new()).await;
        let refused = reader.refusal().await;
        assert!(matches!(&refused, SourceError::Unfit { place, .. } if *place == topic), "{refused:?}");
    }
}

/// Seen to fail where the end of a partition is not compared with the progress: the reader waited for what is gone, until
/// the watchdog gave its clients up.
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_topic_that_lost_everything_is_an_error_for_readers() {
    let (house, relay, topic, _) = twelve().await;
    relay.stop().await.unwrap();
    admin().delete_topics(&[&topic], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    house.create_topic(&topic, 3).await;
    for order in ORDERS {
        let mut reader = Reader::open(house.source_config(), orders(), order, BTreeMap::new()).await;
        let refused = reader.refusal().await;
        assert!(matches!(&refused, SourceError::Missing { .. }), "{order:?}: {refused:?}");
    }
}

/// As for a moment when a coordinator fails between the partitions of a transaction. Seen to fail: the reader said that
/// events are missing and stopped for good, and the relay that its topic was created again.
#[tokio::test(flavor = "multi_thread")]
async fn r11_records_that_an_open_transaction_hides_are_waited_for_and_not_missing() {
    let (house, mut relay, topic, partition) = twelve().await;
    let other = open_transaction(&topic, partition).await;
    let last = house.append("order", "a", 3).await.position;
    relay.reaches(last).await;
    relay.stop().await.unwrap();
    for order in ORDERS {
        let mut reader = Reader::open(house.source_config(), orders(), order, BTreeMap::new()).await;
        let refused = reader.refusal().await;
        assert!(refused.is_transient(), "{order:?}: {refused:?}");
    }
    let mut relay = Running::start(house.relay());
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert!(!relay.task.is_finished(), "{:?}", relay.ends().await);
    let aborted = tokio::task::spawn_blocking(move || other.abort_transaction(PATIENCE).unwrap());
    aborted.await.unwrap();
    let last = house.append("order", "a", 3).await.position;
    relay.reaches(last).await;
    for order in ORDERS {
        let mut reader = Reader::open(house.source_config(), orders(), order, BTreeMap::new()).await;
        reader.read_to(last).await;
        assert_eq!(reader.positions(), (1..=18).collect::<Vec<_>>(), "{order:?}");
    }
}

/// What the errors of the relay tell operators to do, while readers run. Seen to fail: they stopped for good.
#[tokio::test(flavor = "multi_thread")]
async fn r11_readers_survive_topics_that_are_deleted_and_filled_again() {
    let (house, relay, topic, _) = twelve().await;
    relay.stop().await.unwrap();
    let last = house.store.head().await.unwrap();
    for order in ORDERS {
        let mut reader = Reader::open(house.source_config(), orders(), order, BTreeMap::new()).await;
        reader.read_to(last).await;
        let progress = house.topics().progress();
        for (topic, partitions) in [(&topic, 3), (&progress, 1)] {
            admin().delete_topics(&[topic], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
            house.create_topic(topic, partitions).await;
            // The reader meets the one before the other.
            tokio::time::sleep(std::time::Duration::from_secs(4)).await;
        }
        let ended = reader.refusal().await;
        assert!(ended.is_transient(), "{order:?}: {ended:?}");
        let mut again = Running::start(house.relay());
        again.reaches(last).await;
        let mut reader = Reader::open(house.source_config(), orders(), order, reader.into_checkpoints()).await;
        reader.read_to_end().await;
        assert_eq!(reader.positions(), Vec::<u64>::new(), "{order:?}");
        again.stop().await.unwrap();
    }
}
