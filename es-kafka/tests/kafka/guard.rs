//! What a relay refuses to do to topics that are not as it left them, and the way out of each refusal.

use std::collections::BTreeMap;

use es_core::{EventOrder, EventStore, Position, backend::Categories};
use es_kafka::{Relay, RelayConfig, RelayError};
use rdkafka::admin::{AdminOptions, NewPartitions, NewTopic, TopicReplication};
use tokio_util::sync::CancellationToken;

use crate::{
    reader::Reader,
    setup::{House, PATIENCE, Running, admin},
};

impl House {
    pub(crate) async fn delete_topic(&self, topic: &str) {
        admin().delete_topics(&[topic], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    }

    async fn refusal(&self) -> RelayError {
        let ended = tokio::time::timeout(PATIENCE, self.relay().run(CancellationToken::new())).await;
        ended.expect("the relay publishes").unwrap_err()
    }

    /// Runs a relay until everything is published.
    async fn publish(&self) -> Position {
        let last = self.store.head().await.unwrap();
        let mut relay = Running::start(self.relay());
        relay.reaches(last).await;
        relay.stop().await.unwrap();
        last
    }
}

/// Seen to fail: the second run published after the hole, since the records of the first run's aborted
/// transaction had moved the end of the partition past the offset that the progress names.
#[tokio::test(flavor = "multi_thread")]
async fn r10_r11_a_topic_that_was_created_anew_is_refused_by_every_run_until_all_is_published_again() {
    let house = House::new();
    house.append("order", "a", 30).await;
    house.append("payment", "a", 1).await;
    let last = house.publish().await;
    let orders = Categories::Only(vec!["order"]);
    let mut merged = Reader::open(house.source_config(), Categories::All, EventOrder::PerKey, BTreeMap::new()).await;
    merged.read_to(last).await;
    let mut group = Reader::open(house.source_config(), orders.clone(), EventOrder::PerStream, BTreeMap::new()).await;
    group.read_to(last).await;
    let (merged, group) = (merged.checkpoints, group.checkpoints);

    let (events, progress) = (house.topics().events("order"), house.topics().progress());
    house.delete_topic(&events).await;
    house.create_topic(&events, 3).await;
    house.append("order", "a", 30).await;
    for run in 1..=4 {
        let refused = house.refusal().await;
        assert!(matches!(&refused, RelayError::Rewound { topic, .. } if *topic == events), "run {run}: {refused:?}");
        assert!(refused.to_string().contains(&progress), "it names what to delete: {refused}");
    }

    // The remedy that it names. Offsets start again, and readers continue at their positions.
    for topic in [&events, &house.topics().events("payment"), &progress] {
        house.delete_topic(topic).await;
    }
    house.create_topic(&progress, 1).await;
    let last = house.publish().await;
    assert_eq!(house.published(last).await.len() as u64, last.get());
    let mut merged = Reader::open(house.source_config(), Categories::All, EventOrder::PerKey, merged).await;
    merged.read_to(last).await;
    assert_eq!(merged.positions(), (32..=61).collect::<Vec<_>>());
    let mut group = Reader::open(house.source_config(), orders, EventOrder::PerStream, group).await;
    group.read_to(last).await;
    assert_eq!(group.positions(), (32..=61).collect::<Vec<_>>());
}

/// Seen to fail where no dot is added to a prefix: the second relay refused to start.
#[tokio::test(flavor = "multi_thread")]
async fn r10_topics_of_a_prefix_that_begins_alike_are_not_mistaken_for_the_relays_own() {
    let mut staging = House::new();
    let shared = staging.prefix.trim_end_matches('-').to_owned();
    staging.prefix = format!("{shared}staging_");
    staging.append("order", "a", 3).await;
    staging.publish().await;
    let mut house = House::new();
    house.prefix = shared;
    house.append("order", "a", 3).await;
    let last = house.publish().await;
    let mut reader = Reader::open(house.source_config(), Categories::All, EventOrder::PerKey, BTreeMap::new()).await;
    reader.read_to(last).await;
    assert_eq!(reader.positions(), [1, 2, 3]);
}

/// Seen to fail where the relay does not act on the settings that it finds: it published.
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_topic_that_is_compacted_is_refused_before_anything_is_published_to_it() {
    let house = House::new();
    house.append("order", "a", 3).await;
    let topic = house.topics().events("order");
    let compacted = NewTopic::new(&topic, 3, TopicReplication::Fixed(1)).set("cleanup.policy", "compact,delete");
    admin().create_topics([&compacted], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    for run in 1..=2 {
        let refused = house.refusal().await;
        assert!(
            matches!(&refused, RelayError::Compacted { topic: found, .. } if *found == topic),
            "run {run}: {refused:?}"
        );
    }
}

/// Readers look for a stream where the number of partitions says. Seen to fail where the numbers are not compared: it
/// published.
#[tokio::test(flavor = "multi_thread")]
async fn r10_another_number_of_partitions_is_refused_by_every_run() {
    let house = House::new();
    house.append("order", "a", 3).await;
    house.publish().await;
    let topic = house.topics().events("order");
    admin().create_partitions([&NewPartitions::new(&topic, 7)], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    for id in 0..20 {
        house.append("order", &format!("{id}"), 1).await;
    }
    for run in 1..=2 {
        let refused = house.refusal().await;
        let expected =
            matches!(&refused, RelayError::Partitions { topic: found, known: 3, found: 7, .. } if *found == topic);
        assert!(expected, "run {run}: {refused:?}");
    }
}

/// Able to lose: where the client chooses the partition it follows the cluster, and a stream moves.
#[tokio::test(flavor = "multi_thread")]
async fn r10_a_stream_stays_in_its_partition_when_partitions_are_added_under_a_running_relay() {
    let house = House::new();
    let mut last = Position::ZERO;
    for id in 0..20 {
        last = house.append("order", &format!("{id}"), 1).await.position;
    }
    let mut config = RelayConfig { batch_events: 5, ..house.config() };
    config.settings.insert("topic.metadata.refresh.interval.ms", "100");
    let mut relay = Running::start(Relay::new(house.store.clone(), config));
    relay.reaches(last).await;
    let topic = house.topics().events("order");
    admin().create_partitions([&NewPartitions::new(&topic, 7)], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    // Longer than the client takes to hear of them.
    for _ in 0..20 {
        for id in 0..20 {
            last = house.append("order", &format!("{id}"), 1).await.position;
        }
        relay.reaches(last).await;
    }
    relay.stop().await.unwrap();
    let mut partitions = BTreeMap::new();
    for published in house.published(last).await {
        let partition = partitions.entry(published.event.stream.as_str().to_owned()).or_insert(published.partition);
        assert_eq!(*partition, published.partition, "{}", published.event.stream);
    }
}
