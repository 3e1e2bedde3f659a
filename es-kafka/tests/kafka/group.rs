//! A group shares the partitions, and each stream keeps its order.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use es_core::{
    EngineError, Event, EventOrder, EventStore, FoldResult, Keys, MemoryStore, Position, Projection, Projector,
    ReadModel, ReadToken, Recorded,
    backend::{Categories, Checkpoint, Shard, SourceError, Witness},
};
use es_kafka::{KafkaSource, KafkaSourceConfig, RelayStatus};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    reader::Reader,
    setup::{House, PATIENCE, Running},
};

pub(crate) fn orders() -> Categories {
    Categories::Only(vec!["order"])
}

#[tokio::test(flavor = "multi_thread")]
async fn r13_partitions_without_news_advance_with_the_relays_progress() {
    let house = House::new();
    let mut last = house.append("order", "a", 12).await.position;
    let mut relay = Running::start(house.relay());
    relay.reaches(last).await;
    let mut reader = Reader::open(house.source_config(), orders(), EventOrder::PerStream, BTreeMap::new()).await;
    reader.read_to(last).await;
    assert_eq!(reader.checkpoints.len(), 3, "{:?}", reader.checkpoints);
    // One stream lies in one partition; news of other categories lies in none.
    for category in ["order", "payment"] {
        last = house.append(category, "a", 1).await.position;
        reader.read_to(last).await;
    }
    assert_eq!(reader.positions(), (1..=13).collect::<Vec<_>>());
    reader.read_to_end().await;
    let log = house.store.read_log(Position::ZERO, 100).await.unwrap();
    for checkpoint in reader.checkpoints.values() {
        assert_eq!(checkpoint.witness, log.last().map(Witness::of));
    }
}

/// Seen to fail where a reader waited for the client's word that the relay's topic ends there, which never comes while records do.
#[tokio::test(flavor = "multi_thread")]
async fn r18_a_reader_that_opens_beside_a_busy_relay_begins_to_read() {
    let house = House::new();
    let first = house.append("order", "a", 12).await.position;
    let mut relay = Running::start(house.relay());
    relay.reaches(first).await;
    let is_over = CancellationToken::new();
    let writes = is_over.run_until_cancelled(async {
        loop {
            relay.reaches(house.append("order", "b", 1).await.position).await;
        }
    });
    let reads = async {
        for order in [EventOrder::PerStream, EventOrder::PerKey] {
            let mut reader = Reader::open(house.source_config(), orders(), order, BTreeMap::new()).await;
            reader.read_to(first).await;
        }
        let status = RelayStatus::of(&house.store, &house.config()).await.unwrap();
        assert!(status.position >= first);
        is_over.cancel();
    };
    tokio::join!(writes, reads);
}

#[tokio::test(flavor = "multi_thread")]
async fn r9_a_group_continues_at_its_checkpoints_without_loss_or_repetition() {
    let house = House::new();
    let config = KafkaSourceConfig { batch_events: 7, ..house.source_config() };
    continues_at_its_checkpoints(&house, &config, config.clone()).await;
}

/// Readers of one group follow each other, the last one with settings of its own.
pub(crate) async fn continues_at_its_checkpoints(
    house: &House,
    config: &KafkaSourceConfig,
    last_one: KafkaSourceConfig,
) {
    for id in 0..30 {
        house.append("order", &format!("{id}"), 4).await;
    }
    let last = house.store.head().await.unwrap();
    let mut relay = Running::start(house.relay());
    relay.reaches(last).await;
    let (mut checkpoints, mut positions) = (BTreeMap::new(), Vec::new());
    for _ in 0..3 {
        let mut reader = Reader::open(config.clone(), orders(), EventOrder::PerStream, checkpoints).await;
        while reader.batches < 4 {
            reader.step().await.unwrap();
        }
        positions.extend(reader.positions());
        checkpoints = reader.into_checkpoints();
    }
    let mut reader = Reader::open(last_one, orders(), EventOrder::PerStream, checkpoints).await;
    reader.read_to(last).await;
    positions.extend(reader.positions());
    positions.sort_unstable();
    assert_eq!(positions, (1..=last.get()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn r17_a_reader_that_stalls_holds_its_source_back_and_then_gets_everything_in_order() {
    let house = House::new();
    for id in 0..50 {
        house.append_sized("order", &format!("{id}"), 10, 1_000).await;
    }
    let last = house.store.head().await.unwrap();
    let mut relay = Running::start(house.relay());
    relay.reaches(last).await;
    let mut config = KafkaSourceConfig { batch_events: 10, ..house.source_config() };
    config.settings.insert("max.poll.interval.ms", "6000");
    let mut reader = Reader::open(config, orders(), EventOrder::PerStream, BTreeMap::new()).await;
    while reader.batches < 2 {
        reader.step().await.unwrap();
    }
    // Longer than Kafka lets a member live that does not poll.
    tokio::time::sleep(Duration::from_secs(8)).await;
    reader.read_to(last).await;
    let mut positions = reader.positions();
    positions.sort_unstable();
    assert_eq!(positions, (1..=last.get()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_a_dropped_reader_leaves_its_partitions_to_the_next_at_once() {
    let house = House::new();
    let last = house.append("order", "a", 12).await.position;
    let mut relay = Running::start(house.relay());
    relay.reaches(last).await;
    let mut config = house.source_config();
    // A member that does not leave would be waited for this long.
    config.settings.insert("session.timeout.ms", "45000");
    let mut reader = Reader::open(config.clone(), orders(), EventOrder::PerStream, BTreeMap::new()).await;
    reader.read_to(last).await;
    drop(reader);
    let asked = Instant::now();
    let mut reader = Reader::open(config, orders(), EventOrder::PerStream, BTreeMap::new()).await;
    reader.read_to(last).await;
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn r12_a_group_that_starts_at_the_end_says_so_of_every_partition() {
    let house = House::new();
    // One stream: two of three partitions are empty, and the progress does not name them.
    let last = house.append("order", "a", 12).await.position;
    let mut relay = Running::start(house.relay());
    relay.reaches(last).await;
    let mut reader = Reader::open(house.source_config(), orders(), EventOrder::PerStream, BTreeMap::new()).await;
    reader.read_to(last).await;
    let checkpoints = reader.checkpoints.clone();
    assert_eq!(checkpoints.len(), 3);
    drop(reader);
    let mut reader = Reader::open(house.source_config(), orders(), EventOrder::PerStream, checkpoints.clone()).await;
    reader.read_to_end().await;
    assert_eq!((reader.checkpoints, reader.events), (checkpoints, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn r12_a_group_over_topics_without_events_is_at_its_end() {
    let house = House::new();
    house.create_topic(&house.topics().events("order"), 3).await;
    let _relay = Running::start(house.relay());
    let mut reader = Reader::open(house.source_config(), orders(), EventOrder::PerStream, BTreeMap::new()).await;
    reader.read_to_end().await;
    assert_eq!((reader.checkpoints.len(), reader.reached()), (3, Position::ZERO));
    // It is not the end of the group: what comes later is read.
    let last = house.append("order", "a", 12).await.position;
    reader.read_to(last).await;
    reader.read_to_end().await;
    assert_eq!(reader.positions(), (1..=12).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_a_reader_that_cannot_start_a_partition_says_why_and_leaves_the_group() {
    let house = House::new();
    let last = house.append("order", "a", 12).await.position;
    let mut relay = Running::start(house.relay());
    relay.reaches(last).await;
    let mut config = house.source_config();
    // A member that does not leave would be waited for this long.
    config.settings.insert("session.timeout.ms", "45000");
    // The last partition: the others are placed already.
    let shard = Shard::partition(house.topics().events("order"), 2);
    let damaged = Checkpoint { cursor: Some("not an offset".into()), ..Checkpoint::default() };
    let checkpoints = BTreeMap::from([(shard, damaged)]);
    let mut reader = Reader::open(config.clone(), orders(), EventOrder::PerStream, checkpoints).await;
    let refused = reader.refusal().await;
    assert!(matches!(refused, SourceError::Damaged { .. }), "{refused:?}");
    let asked = Instant::now();
    let mut reader = Reader::open(config, orders(), EventOrder::PerStream, BTreeMap::new()).await;
    reader.read_to(last).await;
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
}

#[derive(PartialEq, Event)]
#[event(category = "order")]
enum OrderEvent {
    #[event(name = "order.happened")]
    Happened { text: String },
}

/// What a stream's document has seen.
struct Versions;

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
struct Seen {
    versions: Vec<u64>,
}

impl Projection for Versions {
    const NAME: &'static str = "versions";
    const ORDER: EventOrder = EventOrder::PerStream;
    type Event = OrderEvent;
    type Document = Seen;

    fn keys(&self, event: &Recorded<OrderEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, document: &mut Option<Seen>, event: &Recorded<OrderEvent>) -> FoldResult {
        document.get_or_insert_default().versions.push(event.version.get());
        Ok(())
    }
}

fn projector(house: &House) -> (tokio::task::JoinHandle<Result<(), EngineError>>, CancellationToken) {
    let source = KafkaSource::new(KafkaSourceConfig { batch_events: 10, ..house.source_config() });
    let (store, shutdown) = (Arc::new(house.store.clone()), CancellationToken::new());
    let token = shutdown.clone();
    let task = tokio::spawn(async move { Projector::new(Versions, source, store).run(token).await });
    (task, shutdown)
}

#[tokio::test(flavor = "multi_thread")]
async fn r9_members_that_join_and_leave_fold_every_stream_in_version_order_exactly_once() {
    let house = House::new();
    let _relay = Running::start(house.relay());
    let write = async |rounds: u64| {
        let mut last = Position::ZERO;
        for _ in 0..rounds {
            for id in 0..8 {
                last = house.append("order", &format!("{id}"), 1).await.position;
            }
            tokio::task::yield_now().await;
        }
        last
    };
    let read_model = ReadModel::<Versions>::new(house.store.clone());
    let wait = async |last| read_model.wait_for(ReadToken(last), PATIENCE).await.unwrap();

    write(20).await;
    let (first, stop_first) = projector(&house);
    wait(write(20).await).await;
    let (second, stop_second) = projector(&house);
    wait(write(20).await).await;
    stop_first.cancel();
    first.await.unwrap().unwrap();
    wait(write(20).await).await;
    // Killed, not stopped.
    let (third, stop_third) = projector(&house);
    write(10).await;
    second.abort();
    drop(stop_second);
    let last = write(10).await;
    wait(last).await;
    stop_third.cancel();
    third.await.unwrap().unwrap();

    for id in 0..8 {
        let seen = read_model.get(&format!("{id}")).await.unwrap().unwrap();
        assert_eq!(seen.versions, (1..=100).collect::<Vec<_>>(), "order-{id}");
    }
}

/// Seen to fail: both joined one group, and each got the partitions that the other did not.
#[tokio::test(flavor = "multi_thread")]
async fn r9_two_services_with_a_projection_of_one_name_get_every_event_each() {
    let house = House::new();
    let _relay = Running::start(house.relay());
    let mut last = Position::ZERO;
    for id in 0..20 {
        last = house.append("order", &format!("{id}"), 1).await.position;
    }
    let stores = [MemoryStore::new(), MemoryStore::new()];
    let projectors = stores.clone().map(|store| {
        let source = KafkaSource::new(KafkaSourceConfig { group_prefix: String::new(), ..house.source_config() });
        let (shutdown, projector) = (CancellationToken::new(), Projector::new(Versions, source, store));
        let token = shutdown.clone();
        (tokio::spawn(async move { projector.run(token).await }), shutdown)
    });
    for store in stores {
        let read_model = ReadModel::<Versions>::new(store);
        read_model.wait_for(ReadToken(last), PATIENCE).await.unwrap();
        for id in 0..20 {
            assert!(read_model.get(&format!("{id}")).await.unwrap().is_some(), "order-{id}");
        }
    }
    for (task, shutdown) in projectors {
        shutdown.cancel();
        task.await.unwrap().unwrap();
    }
}
