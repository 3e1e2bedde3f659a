//! Groups by the protocol of Kafka 4, in which the brokers assign partitions.

use std::collections::BTreeMap;

use es_core::{EventOrder, Position, backend::SourceError};
use es_kafka::{KafkaSourceConfig, Settings};

use crate::{
    group::{continues_at_its_checkpoints, orders},
    reader::Reader,
    setup::{House, Running},
};

fn config(house: &House) -> KafkaSourceConfig {
    KafkaSourceConfig {
        settings: Settings::from([("group.protocol", "consumer")]),
        batch_events: 7,
        ..house.source_config()
    }
}

/// The last reader speaks the classic protocol again: the brokers let a group change it while it is empty.
#[tokio::test(flavor = "multi_thread")]
async fn r9_a_group_of_the_brokers_protocol_continues_at_its_checkpoints() {
    let house = House::new();
    continues_at_its_checkpoints(&house, &config(&house), house.source_config()).await;
}

/// A second member takes a part of the partitions over, and gives it back when it leaves.
#[tokio::test(flavor = "multi_thread")]
async fn r9_partitions_move_between_members_of_the_brokers_protocol() {
    let house = House::new();
    let mut relay = Running::start(house.relay());
    let mut last = Position::ZERO;
    for id in 0..30 {
        last = house.append("order", &format!("{id}"), 1).await.position;
    }
    relay.reaches(last).await;
    let mut first = Reader::open(config(&house), orders(), EventOrder::PerStream, BTreeMap::new()).await;
    first.read_to(last).await;
    let mut second = Reader::open(config(&house), orders(), EventOrder::PerStream, first.checkpoints.clone()).await;
    while second.batches == 0 {
        tokio::select! {
            stepped = second.step() => stepped.unwrap(),
            stepped = first.step() => stepped.unwrap(),
        }
    }
    drop(second);
    for id in 0..30 {
        last = house.append("order", &format!("{id}"), 1).await.position;
    }
    // What the second one has read is repeated: its checkpoints are lost with it.
    first.read_to(last).await;
    let mut positions = first.positions();
    positions.sort_unstable();
    positions.dedup();
    assert_eq!(positions, (1..=last.get()).collect::<Vec<_>>());
}

/// It also shows that the client hears of the protocol.
#[tokio::test(flavor = "multi_thread")]
async fn a_property_that_does_not_go_with_the_brokers_protocol_is_refused_and_named() {
    let house = House::new();
    house.append("order", "a", 1).await;
    let _relay = Running::start(house.relay());
    let mut config = config(&house);
    config.settings.insert("session.timeout.ms", "6000");
    let mut reader = Reader::open(config, orders(), EventOrder::PerStream, BTreeMap::new()).await;
    let refused = reader.refusal().await;
    let SourceError::Refused { remedy, source } = &refused else { panic!("{refused:?}") };
    assert!(remedy.contains("settings") && source.to_string().contains("session.timeout.ms"), "{refused:?}");
}
