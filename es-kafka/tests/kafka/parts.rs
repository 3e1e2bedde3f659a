//! A batch that is committed in parts: the checkpoint between two of them is after its cursor.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use es_core::{
    EngineError, Event, EventOrder, EventStore, FoldResult, KeyRange, Keys, Position, Projection, Projector, ReadModel,
    ReadToken, Recorded, testing::project,
};
use es_kafka::KafkaSource;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::setup::{House, PATIENCE, Running};

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "order")]
pub(crate) enum OrderEvent {
    #[event(name = "order.happened")]
    Happened { text: String },
}

/// The positions of the events of each order. It asks for the end of its worker at some of them, and takes its time.
#[derive(Clone, Default)]
pub(crate) struct Positions<const PER_STREAM: bool> {
    refuse: Option<u64>,
    each: Duration,
    folds: Arc<AtomicU64>,
}

impl<const PER_STREAM: bool> Projection for Positions<PER_STREAM> {
    const NAME: &'static str = "positions";
    const ORDER: EventOrder = if PER_STREAM { EventOrder::PerStream } else { EventOrder::PerKey };
    type Event = OrderEvent;
    type Document = Vec<u64>;

    fn keys(&self, event: &Recorded<OrderEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, seen: &mut Option<Vec<u64>>, event: &Recorded<OrderEvent>) -> FoldResult {
        std::thread::sleep(self.each);
        self.folds.fetch_add(1, Ordering::Relaxed);
        if self.refuse == Some(event.position.get()) {
            return Err("as the test wants it".into());
        }
        seen.get_or_insert_default().push(event.position.get());
        Ok(())
    }
}

pub(crate) fn projector<const PER_STREAM: bool>(
    house: &House,
    projection: Positions<PER_STREAM>,
) -> Projector<Positions<PER_STREAM>> {
    let source = KafkaSource::new(house.source_config());
    Projector::new(projection, source, house.store.clone())
}

pub(crate) async fn assert_equals_the_fold<const PER_STREAM: bool>(house: &House) {
    let model = ReadModel::<Positions<PER_STREAM>>::new(Arc::new(house.store.clone()));
    let log = house.store.read_log(Position::ZERO, 10_000).await.unwrap();
    let head = log.last().unwrap().position;
    model.wait_for(ReadToken(head), PATIENCE).await.unwrap();
    let documents: BTreeMap<_, _> =
        model.scan(KeyRange::default(), 1_000).await.unwrap().documents.into_iter().collect();
    assert_eq!(documents, project(&Positions::<PER_STREAM>::default(), &log).unwrap());
}

async fn published(orders: u64, each: usize) -> (House, Running) {
    let house = House::new();
    for id in 0..orders {
        house.append("order", &format!("{id}"), each).await;
    }
    let mut relay = Running::start(house.relay());
    relay.reaches(house.store.head().await.unwrap()).await;
    (house, relay)
}

/// Each time the projector stops at another event, within a batch, and the next one continues from there.
async fn continues_within_a_batch<const PER_STREAM: bool>() {
    let (house, _relay) = published(7, 5).await;
    // Members of a group read partitions apart: events of other streams may have been folded in an earlier run.
    let refused: &[u64] = if PER_STREAM { &[2, 3, 5] } else { &[3, 4, 19, 33] };
    for &refuse in refused {
        let poisoned = Positions::<PER_STREAM> { refuse: Some(refuse), ..Positions::default() };
        let projector = projector(&house, poisoned);
        let stopped = tokio::time::timeout(PATIENCE, projector.run(CancellationToken::new())).await;
        let error = stopped.expect("it meets the event").unwrap_err();
        let EngineError::Unfoldable { event, .. } = error else { panic!("{error:?}") };
        assert_eq!(event.position.get(), refuse);
    }
    let shutdown = CancellationToken::new();
    let _stop = shutdown.clone().drop_guard();
    let corrected = projector(&house, Positions::<PER_STREAM>::default());
    tokio::spawn(async move { corrected.run(shutdown).await });
    assert_equals_the_fold::<PER_STREAM>(&house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r9_r11_a_group_continues_within_a_batch() {
    continues_within_a_batch::<true>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r9_r11_a_merge_continues_within_a_batch() {
    continues_within_a_batch::<false>().await;
}

/// Three workers whose lease is far shorter than a batch takes.
async fn folds_of_three<const PER_STREAM: bool>() -> u64 {
    let (house, _relay) = published(40, 5).await;
    let slow = Positions::<PER_STREAM> { each: Duration::from_millis(20), ..Positions::default() };
    let (shutdown, mut workers) = (CancellationToken::new(), JoinSet::new());
    for _ in 0..3 {
        let worker = projector(&house, slow.clone()).lease(Duration::from_secs(1));
        let shutdown = shutdown.clone();
        workers.spawn(async move { worker.run(shutdown).await });
    }
    assert_equals_the_fold::<PER_STREAM>(&house).await;
    shutdown.cancel();
    for stopped in workers.join_all().await {
        stopped.unwrap();
    }
    slow.folds.load(Ordering::Relaxed)
}

/// A rebalance may interrupt a worker within a part, which takes a second at most, and whose events are folded again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slow_workers_of_a_group_do_not_repeat_their_work() {
    let folds = folds_of_three::<true>().await;
    assert!(folds <= 200 + 3 * 50, "{folds} folds of 200 events");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slow_workers_of_a_merge_do_not_repeat_their_work() {
    assert_eq!(folds_of_three::<false>().await, 200);
}
