use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;

use super::*;
use crate::{
    Append, AppendError, Appended, EventQuery, EventStore, Expected, IdempotencyKey, NewEvent, Position, ReadError,
    RecordedEvent, StreamId, Version,
    memory::MemoryStore,
    read::{
        projection::Projection,
        read_model::{Checkpoint, GenerationState, Generations, Leases, Slice},
    },
    testing::account::{AccountEvent, Histories},
    write::store::CommandRecord,
};

/// A log that notes how many leases are held while it is read, and how many events that gives.
#[derive(Debug)]
struct Log {
    store: MemoryStore,
    reader: Reader,
    most_held: AtomicUsize,
    read_meanwhile: AtomicU64,
}

#[async_trait]
impl EventStore for Log {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.store.append(append).await
    }

    async fn append_together(&self, appends: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        self.store.append_together(appends).await
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        self.store.read_stream(stream, after, limit).await
    }

    async fn read_log(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, ReadError> {
        let events = self.store.read_log(after, limit).await?;
        let held = self.store.shares(&self.reader).await.expect("asked").len();
        self.most_held.fetch_max(held, Ordering::Relaxed);
        if held > 0 {
            self.read_meanwhile.fetch_add(events.len() as u64, Ordering::Relaxed);
        }
        Ok(events)
    }

    async fn read_matching(
        &self,
        query: &EventQuery,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        self.store.read_matching(query, after, limit).await
    }

    async fn head(&self) -> Result<Position, ReadError> {
        self.store.head().await
    }

    async fn wait_past(&self, after: Position) -> Result<(), ReadError> {
        self.store.wait_past(after).await
    }

    async fn find_command(&self, stream: &StreamId, key: &IdempotencyKey) -> Result<Option<CommandRecord>, ReadError> {
        self.store.find_command(stream, key).await
    }

    async fn probe(&self) -> Result<Duration, ReadError> {
        self.store.probe().await
    }
}

const EVENTS: u64 = 100;

fn account(number: u64) -> String {
    format!("a{number:02}")
}

/// Fifty accounts of a hundred events each, and a read model that has none of them in `shards`.
async fn filled(shards: &[Shard]) -> Log {
    let store = MemoryStore::new();
    for number in 0..50 {
        let stream = StreamId::new("account", &account(number)).expect("a stream");
        let events = (0..EVENTS).map(|amount| NewEvent::of(&AccountEvent::Deposited { amount }).expect("an event"));
        store.append(Append::new(stream, Expected::Any, events.collect())).await.expect("appended");
    }
    let serving = store.ensure_generation(Histories::NAME, 1, GenerationState::Serving, "projection", &[]).await;
    let reader = serving.expect("made").reader;
    store.ensure_shards(&reader, shards).await.expect("made");
    Log { store, reader, most_held: AtomicUsize::new(0), read_meanwhile: AtomicU64::new(0) }
}

/// Lets `shard` reach `position` with the right documents of its keys, but for `wrong`.
async fn reaches(log: &Log, shard: &Shard, position: u64, wrong: &str) {
    let lease = log.store.acquire(&log.reader, shard, Uuid::now_v7(), Takeover::Always, LEASE).await;
    let lease = lease.expect("asked").expect("it is there");
    let history = serde_json::to_vec(&(1..=EVENTS).collect::<Vec<_>>()).expect("JSON");
    let own = (0..position / EVENTS).map(account).filter(|key| shard.slice().holds(key));
    let document = |key: String| {
        let history = if key == wrong { "[7]".into() } else { history.clone().into() };
        (key, history)
    };
    let upserts = own.map(document).chain([(wrong.to_owned(), "[7]".into())]).collect();
    let checkpoint = Checkpoint { position: Position::new(position), ..Checkpoint::default() };
    log.store.commit(&lease, Changes { upserts, checkpoint, ..Changes::default() }).await.expect("committed");
    log.store.release(&lease).await.expect("released");
}

async fn healed(log: &Log) -> Result<Verified, RefoldError> {
    let act = Act::new("ada", "a test").expect("valid");
    let place = Place { log, store: &log.store, share: 1.0, limit: usize::MAX };
    heal(&Histories, place, &log.store, &act, &mut |_| {}).await
}

/// R9: one shard is far behind the other. It would fail where the leases of both were held while the log between them was folded: no
/// document was written for as long.
#[tokio::test]
async fn r9_a_lease_is_held_for_the_last_events_of_one_shard_only() {
    let shards = Shard::split("log", 2);
    let log = filled(&shards).await;
    let keys = |slice: Slice| (0..50).map(account).filter(move |key| slice.holds(key));
    let (behind, ahead) = (keys(shards[0].slice()).next(), keys(shards[1].slice()).next());
    reaches(&log, &shards[0], 0, &behind.expect("a key")).await;
    reaches(&log, &shards[1], 50 * EVENTS, &ahead.expect("a key")).await;
    assert_eq!(healed(&log).await.expect("mended").mended, 2);
    assert!(log.most_held.load(Ordering::Relaxed) <= 1, "one after the other");
    let read = log.read_meanwhile.load(Ordering::Relaxed);
    assert!(read <= 2 * CLOSE, "{read} events");
    assert_eq!(healed(&log).await.expect("verified").differing, 0);
}

/// It is not known which keys are in which partition.
#[tokio::test(start_paused = true)]
async fn partitions_are_mended_when_they_have_reached_the_same_position() {
    let partitions = [0, 1].map(|number| Shard::partition("orders", number));
    let log = filled(&partitions).await;
    reaches(&log, &partitions[0], 50 * EVENTS, "a07").await;
    reaches(&log, &partitions[1], 49 * EVENTS, "a07").await;
    let uneven = healed(&log).await;
    assert!(
        matches!(uneven, Err(RefoldError::Uneven { least, greatest }) if (least.get(), greatest.get()) == (4_900, 5_000)),
        "{uneven:?}"
    );
    assert_eq!(log.most_held.load(Ordering::Relaxed), 0, "no worker was fenced");
    let (healed, ()) = tokio::join!(healed(&log), async {
        tokio::time::sleep(LEVEL_WITHIN / 2).await;
        reaches(&log, &partitions[1], 50 * EVENTS, "a07").await;
    });
    let healed = healed.expect("mended");
    assert_eq!((healed.differing, healed.mended), (1, 1));
}
