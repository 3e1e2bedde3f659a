use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use async_trait::async_trait;

use super::{super::tests::drifted, *};
use crate::{
    Append, EventStore, Expected, NewEvent, Position, ReadError, StreamId,
    error::BoxError,
    inspect::{Finding, StreamSummary},
    memory::MemoryStore,
    read::{
        projection::Projection,
        read_model::{Checkpoint, GenerationState, Generations, Leases, ReadModelError, Slice},
        samples::Distinct,
        scripted::Watched,
    },
    testing::account::{AccountEvent, Histories},
    write::scripted::Scripted,
};

/// A log and its read model, and what is noted while the log is read: the most leases that are held, and how many events are read
/// while one is.
struct Fixture {
    store: Watched,
    reader: Reader,
    log: Scripted,
    most_held: Arc<AtomicUsize>,
    read_meanwhile: Arc<AtomicU64>,
}

const EVENTS: u64 = 100;

fn account(number: u64) -> String {
    format!("a{number:02}")
}

/// Fifty accounts of a hundred events each, and a read model that has none of them in `shards`.
async fn filled(shards: &[Shard]) -> Fixture {
    let store = Watched::default();
    for number in 0..50 {
        let stream = StreamId::new("account", &account(number)).expect("a stream");
        let events = (0..EVENTS).map(|amount| NewEvent::of(&AccountEvent::Deposited { amount }).expect("an event"));
        store.memory.append(Append::new(stream, Expected::Any, events.collect())).await.expect("appended");
    }
    let serving = store.ensure_generation(Histories::NAME, 1, GenerationState::Serving, "projection", &[]).await;
    let reader = serving.expect("made").reader;
    store.ensure_shards(&reader, shards).await.expect("made");
    let (most_held, read_meanwhile) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
    let (watched, most, meanwhile) = (store.clone(), most_held.clone(), read_meanwhile.clone());
    let log = Scripted::noting(store.memory.clone(), move |page| {
        let held = watched.held();
        most.fetch_max(held, Ordering::Relaxed);
        if held > 0 {
            meanwhile.fetch_add(page.len() as u64, Ordering::Relaxed);
        }
    });
    Fixture { store, reader, log, most_held, read_meanwhile }
}

/// Lets `shard` reach `position` with the right documents of its keys, but for `wrong`.
async fn reaches(fixture: &Fixture, shard: &Shard, position: u64, wrong: &str) {
    let lease = fixture.store.acquire(&fixture.reader, shard, Uuid::now_v7(), Takeover::Always, LEASE).await;
    let lease = lease.expect("asked").expect("it is there");
    let history = serde_json::to_vec(&(1..=EVENTS).collect::<Vec<_>>()).expect("JSON");
    let own = (0..position / EVENTS).map(account).filter(|key| shard.slice().holds(key));
    let document = |key: String| {
        let history = if key == wrong { "[7]".into() } else { history.clone().into() };
        (key, history)
    };
    let upserts = own.map(document).chain([(wrong.to_owned(), "[7]".into())]).collect();
    let checkpoint = Checkpoint { position: Position::new(position), ..Checkpoint::default() };
    fixture.store.commit(&lease, Changes { upserts, checkpoint, ..Changes::default() }).await.expect("committed");
    fixture.store.release(&lease).await.expect("released");
}

async fn healed(fixture: &Fixture) -> Result<Verified, RefoldError> {
    let place = Place { log: &fixture.log, store: &fixture.store, share: 1.0, limit: usize::MAX };
    heal(&Histories, place, &fixture.store.memory, &act(), &mut |_| {}).await
}

/// R9: one shard is far behind the other. It would fail where the leases of both were held while the log between them was folded: no
/// document was written for as long.
#[tokio::test]
async fn r9_a_lease_is_held_for_the_last_events_of_one_shard_only() {
    let shards = Shard::split("log", 2);
    let fixture = filled(&shards).await;
    let keys = |slice: Slice| (0..50).map(account).filter(move |key| slice.holds(key));
    let (behind, ahead) = (keys(shards[0].slice()).next(), keys(shards[1].slice()).next());
    reaches(&fixture, &shards[0], 0, &behind.expect("a key")).await;
    reaches(&fixture, &shards[1], 50 * EVENTS, &ahead.expect("a key")).await;
    assert_eq!(healed(&fixture).await.expect("mended").mended, 2);
    assert!(fixture.most_held.load(Ordering::Relaxed) <= 1, "one after the other");
    let read = fixture.read_meanwhile.load(Ordering::Relaxed);
    assert!(read <= 2 * CLOSE, "{read} events");
    assert_eq!(healed(&fixture).await.expect("verified").differing, 0);
}

/// It is not known which keys are in which partition.
#[tokio::test(start_paused = true)]
async fn partitions_are_mended_when_they_have_reached_the_same_position() {
    let partitions = [0, 1].map(|number| Shard::partition("orders", number));
    let fixture = filled(&partitions).await;
    reaches(&fixture, &partitions[0], 50 * EVENTS, "a07").await;
    reaches(&fixture, &partitions[1], 49 * EVENTS, "a07").await;
    let uneven = healed(&fixture).await;
    assert!(
        matches!(uneven, Err(RefoldError::Uneven { least, greatest }) if (least.get(), greatest.get()) == (4_900, 5_000)),
        "{uneven:?}"
    );
    assert_eq!(fixture.most_held.load(Ordering::Relaxed), 0, "no worker was fenced");
    let (healed, ()) = tokio::join!(healed(&fixture), async {
        tokio::time::sleep(LEVEL_WITHIN / 2).await;
        reaches(&fixture, &partitions[1], 50 * EVENTS, "a07").await;
    });
    let healed = healed.expect("mended");
    assert_eq!((healed.differing, healed.mended), (1, 1));
}

/// Its readers are 1,001 events further with each look.
#[derive(Debug)]
struct Ahead(MemoryStore, AtomicU64);

#[async_trait]
impl Inspect for Ahead {
    async fn list_streams(&self, _: &str, _: Option<&str>, _: usize) -> Result<Vec<StreamSummary>, ReadError> {
        Ok(Vec::new())
    }

    async fn list_readers(&self) -> Result<Vec<ReaderSummary>, ReadModelError> {
        let looks = self.1.fetch_add(1, Ordering::Relaxed) + 1;
        let mut readers = self.0.list_readers().await?;
        for shard in readers.iter_mut().flat_map(|reader| &mut reader.shards) {
            shard.position = Position::new(looks * (CLOSE + 1));
        }
        Ok(readers)
    }

    async fn diagnose(&self) -> Result<Vec<Finding>, BoxError> {
        Ok(Vec::new())
    }
}

fn act() -> Act {
    Act::new("ada", "a test").expect("valid")
}

/// A worker that is always further than a lease may be held for. It is not fenced.
#[tokio::test]
async fn a_read_model_whose_worker_is_faster_than_the_fold_is_not_mended() {
    let shard = Shard::whole("log");
    let Fixture { store, reader, .. } = filled(std::slice::from_ref(&shard)).await;
    // No event of them concerns the read model.
    let ahead = Ahead(store.memory.clone(), AtomicU64::new(0));
    for number in 0..25 {
        let stream = StreamId::new("other", &number.to_string()).expect("a stream");
        let events = (0..1_000).map(|amount| NewEvent::of(&AccountEvent::Deposited { amount }).expect("an event"));
        store.memory.append(Append::new(stream, Expected::Any, events.collect())).await.expect("appended");
    }
    let (keys, act) = (BTreeSet::new(), act());
    let mending = Mending { store: &store, readers: &ahead, reader, keys: &keys, act: &act };
    let mut refold = Refold::new(&Histories, &store.memory, |_| false);
    let mended = mending.mend_group(&[shard], BTreeSet::new(), &mut refold).await;
    assert!(matches!(mended, Err(RefoldError::TooFast)), "{mended:?}");
    assert_eq!((ahead.1.load(Ordering::Relaxed), store.held()), (ROUNDS as u64, 0));
}

/// The workers may have gone on until their leases are taken.
#[tokio::test]
async fn r9_what_is_folded_under_leases_is_little_and_up_to_one_position() {
    let shards = Shard::split("log", 2);
    let Fixture { store, reader, .. } = filled(&shards).await;
    let (keys, act) = (BTreeSet::new(), act());
    let mending = Mending { store: &store, readers: &store.memory, reader: reader.clone(), keys: &keys, act: &act };
    let mended = async |at: [u64; 2]| {
        let leases = [0, 1].map(|nth| {
            let checkpoint = Checkpoint { position: Position::new(at[nth]), ..Checkpoint::default() };
            Lease::new(reader.clone(), shards[nth].clone(), Uuid::nil(), 1, LEASE, checkpoint)
        });
        let mut refold = Refold::new(&Histories, &store.memory, |_| false);
        mending.mend(&leases, BTreeSet::new(), &mut refold).await
    };
    assert!(matches!(mended([2 * CLOSE; 2]).await, Ok(0)));
    assert!(matches!(mended([2 * CLOSE + 1; 2]).await, Err(RefoldError::TooFast)));
    assert!(matches!(mended([1, 2]).await, Err(RefoldError::Uneven { .. })));
    assert!(matches!(mended([2, 1]).await, Err(RefoldError::Uneven { .. })));
}

#[tokio::test]
async fn fields_are_read_with_the_documents_that_have_some() {
    let (store, generation) = drifted().await;
    let (keys, act) = (BTreeSet::new(), act());
    let reader = generation.reader.clone();
    let mending = Mending { store: &store, readers: &store, reader, keys: &keys, act: &act };
    let stored = mending.load::<Distinct>(&generation.reader, &["a".to_owned()]).await.expect("read");
    assert_eq!(stored[0].fields.len(), 1);
}
