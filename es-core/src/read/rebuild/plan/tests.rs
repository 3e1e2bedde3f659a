use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{Measured, RebuildPlan};
use crate::{
    Append, EventStore, Expected, FoldResult, Keys, LogSource, MemoryStore, NewEvent, Projection, Projector, Recorded,
    StreamId,
    testing::account::{AccountEvent, Histories},
};

#[test]
fn what_was_measured_is_applied_to_all_events() {
    let measured = Measured { events: 1_000, bytes: 200_000, took: Duration::from_millis(5) };
    let plan = RebuildPlan { events: 10_000, bytes: 2_000_000, time: Duration::from_millis(50) };
    assert_eq!(measured.plan(10_000), plan);
    assert_eq!(Measured::default().plan(0), RebuildPlan::default());
}

/// The payloads of the two halves of the log have different lengths, so a sample of its beginning would not do.
#[tokio::test]
async fn a_plan_is_made_of_events_from_all_over_the_log() {
    let store = MemoryStore::new();
    let stream = StreamId::new("account", "a").expect("a stream");
    for amount in [1, 1_000_000] {
        let events = (0..10_000).map(|_| NewEvent::of(&AccountEvent::Deposited { amount }).expect("an event"));
        store.append(Append::new(stream.clone(), Expected::Any, events.collect())).await.expect("appended");
    }
    let projector = Projector::new(Histories, LogSource::new(store.clone()), store.clone());
    let plan = projector.plan_rebuild(&store).await.expect("planned");
    let bytes: usize = [1, 1_000_000].map(|amount| format!("{{\"amount\":{amount}}}").len() * 10_000).iter().sum();
    assert_eq!((plan.events, plan.bytes), (20_000, bytes as u64));
    assert!(!plan.time.is_zero());
}

/// Counts its folds.
struct Counted(Arc<AtomicUsize>);

impl Projection for Counted {
    const NAME: &'static str = "counted";
    type Event = AccountEvent;
    type Document = u64;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, _: &mut Option<u64>, _: &Recorded<AccountEvent>) -> FoldResult {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[tokio::test]
async fn the_time_of_a_plan_is_that_of_reading_and_folding() {
    let (store, folds) = (MemoryStore::new(), Arc::new(AtomicUsize::new(0)));
    let stream = StreamId::new("account", "a").expect("a stream");
    let events = (0..10).map(|_| NewEvent::of(&AccountEvent::Deposited { amount: 1 }).expect("an event"));
    store.append(Append::new(stream, Expected::Any, events.collect())).await.expect("appended");
    let projector = Projector::new(Counted(folds.clone()), LogSource::new(store.clone()), store.clone());
    projector.plan_rebuild(&store).await.expect("planned");
    assert_eq!(folds.load(Ordering::Relaxed), 10);
}

/// Refuses 3.
struct Refuses<const V: u32>;

impl<const V: u32> Projection for Refuses<V> {
    const NAME: &'static str = "refuses";
    const VERSION: u32 = V;
    type Event = AccountEvent;
    type Document = u64;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, document: &mut Option<u64>, event: &Recorded<AccountEvent>) -> FoldResult {
        match event.data {
            AccountEvent::Deposited { amount: 3 } => Err("as the test wants it".into()),
            AccountEvent::Deposited { amount } | AccountEvent::Withdrawn { amount } => {
                *document = Some(amount);
                Ok(())
            }
        }
    }
}

#[tokio::test]
async fn a_plan_begins_where_an_earlier_rebuild_of_the_same_version_has_stopped() {
    let store = MemoryStore::new();
    let stream = StreamId::new("account", "a").expect("a stream");
    let events = [1, 2, 3, 4].map(|amount| NewEvent::of(&AccountEvent::Deposited { amount }).expect("an event"));
    store.append(Append::new(stream, Expected::Any, events.into())).await.expect("appended");
    let projector = Projector::new(Refuses::<1>, LogSource::new(store.clone()), store.clone());
    projector.rebuild(CancellationToken::new()).await.expect_err("it stops before the third event");
    assert_eq!(projector.plan_rebuild(&store).await.expect("planned").events, 2);
    let next = Projector::new(Refuses::<2>, LogSource::new(store.clone()), store.clone());
    assert_eq!(next.plan_rebuild(&store).await.expect("planned").events, 4);
}

/// Notes how many amounts a document had when it was folded.
#[derive(Default)]
struct Growing(std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl Projection for Growing {
    const NAME: &'static str = "growing";
    type Event = AccountEvent;
    type Document = Vec<u64>;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, document: &mut Option<Vec<u64>>, event: &Recorded<AccountEvent>) -> FoldResult {
        let document = document.get_or_insert_default();
        self.0.fetch_max(document.len(), std::sync::atomic::Ordering::Relaxed);
        document.push(event.version.get());
        Ok(())
    }
}

/// It would fail where each sample was folded into no document: a read model whose documents grow was to take a tenth of its time.
#[tokio::test]
async fn a_plan_folds_into_the_documents_that_serve() {
    let store = MemoryStore::new();
    let stream = StreamId::new("account", "a").expect("a stream");
    let events = (0..5_000).map(|amount| NewEvent::of(&AccountEvent::Deposited { amount }).expect("an event"));
    store.append(Append::new(stream, Expected::Any, events.collect())).await.expect("appended");
    let projection = Growing::default();
    let longest = projection.0.clone();
    let projector = Projector::new(projection, LogSource::new(store.clone()), store.clone());
    let planned = async || {
        longest.store(0, std::sync::atomic::Ordering::Relaxed);
        projector.plan_rebuild(&store).await.expect("planned");
        longest.load(std::sync::atomic::Ordering::Relaxed)
    };
    assert_eq!(planned().await, 999, "nothing serves: each sample of a thousand events begins without a document");
    projector.rebuild(CancellationToken::new()).await.expect("rebuilt").expect("it serves");
    assert_eq!(planned().await, 5_999);
}
