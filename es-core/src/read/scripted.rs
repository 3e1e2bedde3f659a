//! A store and a source for the tests of the read side: they note what they are asked for, and do what a test says.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    event::RecordedEvent,
    memory::MemoryStore,
    read::{
        known_progress::KnownProgress,
        read_model::{
            Act, ActError, ActRecord, Changeover, Changes, Checkpoint, CommitError, DeadLetter, DeadLetters,
            DeclaredField, Documents, EnsureError, Exceptions, FieldScan, FoundDocument, Generation, GenerationSet,
            GenerationState, Generations, Hold, KeyRange, Lease, Leases, LetterPage, Operations, ParkedKey, Pause,
            PromoteError, Promotion, ReadModelError, Reader, Served, Shard, Share, Situation, StoppedAt,
            StoredDocument, Takeover,
        },
        source::{Delivery, EventFeed, EventSource, SourceError, Subscription},
    },
    stream::Position,
};

/// A memory store that notes what workers do, and may be broken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watched {
    pub(crate) memory: MemoryStore,
    noted: Arc<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    situations: AtomicUsize,
    is_broken: AtomicBool,
    asked: AtomicUsize,
    ttl: Mutex<Option<Duration>>,
    holds: Mutex<Vec<Hold>>,
    commits: Mutex<Vec<u64>>,
    holds_back: Mutex<Option<CancellationToken>>,
    released: AtomicUsize,
    excepts: Mutex<Option<Exceptions>>,
}

impl Watched {
    /// From now on, it fails to return documents and generations, and to commit.
    pub(crate) fn breaks(&self) {
        self.noted.is_broken.store(true, Ordering::SeqCst);
    }

    /// Puts texts into the generation `reader`, so that they have so many bytes with their quotes.
    pub(crate) async fn has<const N: usize>(&self, reader: &Reader, texts: [(&str, usize); N]) {
        let (shard, ttl) = (Shard::whole("test"), Duration::from_mins(1));
        self.memory.ensure_shards(reader, std::slice::from_ref(&shard)).await.expect("ensured");
        let lease = self.memory.acquire(reader, &shard, Uuid::now_v7(), Takeover::Always, ttl).await;
        let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2)).into();
        let upserts = texts.map(|(key, bytes)| (key.to_owned(), text(bytes))).to_vec();
        let changes = Changes { upserts, ..Changes::default() };
        self.memory.commit(&lease.expect("asked").expect("taken"), changes).await.expect("committed");
    }

    /// The next question for exceptions is answered with these.
    pub(crate) fn excepts(&self, exceptions: Exceptions) {
        *self.noted.excepts.lock().expect("nothing panics under it") = Some(exceptions);
    }

    /// All leases that it has given are lost.
    pub(crate) fn loses_all(&self) {
        self.noted.holds.lock().expect("nothing panics under it").iter().for_each(Hold::lose);
    }

    /// The number of leases that were released.
    pub(crate) fn released(&self) -> usize {
        self.noted.released.load(Ordering::SeqCst)
    }

    /// Commits wait until what is returned is cancelled.
    pub(crate) fn holds_commits_back(&self) -> CancellationToken {
        let until = CancellationToken::new();
        *self.noted.holds_back.lock().expect("nothing panics under it") = Some(until.clone());
        until
    }

    /// How many of the leases that it has given were not released.
    pub(crate) fn held(&self) -> usize {
        self.noted.holds.lock().expect("nothing panics under it").len() - self.released()
    }

    /// How often it was asked for documents or generations.
    pub(crate) fn asked(&self) -> usize {
        self.noted.asked.load(Ordering::SeqCst)
    }

    /// The length of the lease that was acquired last.
    pub(crate) fn ttl(&self) -> Option<Duration> {
        *self.noted.ttl.lock().expect("nothing panics under it")
    }

    /// How often it was asked for what is parked.
    pub(crate) fn situations(&self) -> usize {
        self.noted.situations.load(Ordering::SeqCst)
    }

    /// The positions of all commits.
    pub(crate) fn commits(&self) -> Vec<u64> {
        self.noted.commits.lock().expect("nothing panics under it").clone()
    }

    fn reader(&self) -> Result<&MemoryStore, ReadModelError> {
        self.noted.asked.fetch_add(1, Ordering::SeqCst);
        self.working()
    }

    fn working(&self) -> Result<&MemoryStore, ReadModelError> {
        if self.noted.is_broken.load(Ordering::SeqCst) {
            return Err(ReadModelError("it is broken".into()));
        }
        Ok(&self.memory)
    }
}

#[async_trait]
impl Documents for Watched {
    async fn get(&self, projection: &str, key: &str) -> Result<Option<Served<Option<Bytes>>>, ReadModelError> {
        self.reader()?.get(projection, key).await
    }

    async fn scan(
        &self,
        projection: &str,
        range: KeyRange,
        limit: usize,
    ) -> Result<Option<Served<Vec<(String, Bytes)>>>, ReadModelError> {
        self.reader()?.scan(projection, range, limit).await
    }

    async fn find(
        &self,
        projection: &str,
        scan: &FieldScan,
        limit: usize,
    ) -> Result<Option<Served<Option<Vec<FoundDocument>>>>, ReadModelError> {
        self.reader()?.find(projection, scan, limit).await
    }

    async fn count(&self, projection: &str, scan: &FieldScan) -> Result<Option<Served<Option<u64>>>, ReadModelError> {
        self.reader()?.count(projection, scan).await
    }

    async fn load(
        &self,
        reader: &Reader,
        keys: &[String],
        budget: usize,
    ) -> Result<Vec<Option<Bytes>>, ReadModelError> {
        self.reader()?.load(reader, keys, budget).await
    }

    async fn stored(&self, reader: &Reader, keys: &[String]) -> Result<Vec<StoredDocument>, ReadModelError> {
        self.reader()?.stored(reader, keys).await
    }

    async fn generations(&self, projection: &str) -> Result<GenerationSet, ReadModelError> {
        self.reader()?.generations(projection).await
    }

    fn known_progress(&self) -> &KnownProgress {
        self.memory.known_progress()
    }
}

#[async_trait]
impl Generations for Watched {
    async fn ensure_generation(
        &self,
        projection: &str,
        version: u32,
        state: GenerationState,
        definition: &str,
        fields: &[DeclaredField],
    ) -> Result<Generation, EnsureError> {
        self.memory.ensure_generation(projection, version, state, definition, fields).await
    }

    async fn state(&self, generation: &Generation) -> Result<Option<GenerationState>, ReadModelError> {
        self.memory.state(generation).await
    }

    async fn promote(&self, building: &Generation, promotion: Promotion) -> Result<(), PromoteError> {
        self.memory.promote(building, promotion).await
    }

    async fn discard(&self, building: &Generation) -> Result<(), ReadModelError> {
        self.memory.discard(building).await
    }
}

#[async_trait]
impl Leases for Watched {
    async fn id(&self) -> Result<Uuid, ReadModelError> {
        self.memory.id().await
    }

    async fn ensure_reader(&self, name: &str, definition: &str) -> Result<(Reader, String), ReadModelError> {
        self.memory.ensure_reader(name, definition).await
    }

    async fn reached(&self, name: &str) -> Result<Position, ReadModelError> {
        self.memory.reached(name).await
    }

    async fn ensure_shards(&self, reader: &Reader, shards: &[Shard]) -> Result<Changeover, ReadModelError> {
        self.memory.ensure_shards(reader, shards).await
    }

    async fn acquire(
        &self,
        reader: &Reader,
        shard: &Shard,
        owner: Uuid,
        takeover: Takeover,
        ttl: Duration,
    ) -> Result<Option<Lease>, ReadModelError> {
        *self.noted.ttl.lock().expect("nothing panics under it") = Some(ttl);
        let acquired = self.memory.acquire(reader, shard, owner, takeover, ttl).await?;
        let hold = acquired.as_ref().map(Lease::hold);
        self.noted.holds.lock().expect("nothing panics under it").extend(hold);
        Ok(acquired)
    }

    async fn confirm(&self, lease: &Lease) -> Result<(), CommitError> {
        self.memory.confirm(lease).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), ReadModelError> {
        self.noted.released.fetch_add(1, Ordering::SeqCst);
        self.memory.release(lease).await
    }

    async fn commit(&self, lease: &Lease, changes: Changes) -> Result<(), CommitError> {
        let position = changes.checkpoint.position.get();
        self.noted.commits.lock().expect("nothing panics under it").push(position);
        let until = self.noted.holds_back.lock().expect("nothing panics under it").clone();
        if let Some(until) = until {
            until.cancelled().await;
        }
        self.working()?.commit(lease, changes).await
    }

    async fn situation(&self, lease: &Lease) -> Result<Situation, CommitError> {
        self.noted.situations.fetch_add(1, Ordering::SeqCst);
        self.memory.situation(lease).await
    }

    async fn letters(&self, lease: &Lease, key: &str) -> Result<Vec<DeadLetter>, ReadModelError> {
        self.memory.letters(lease, key).await
    }

    async fn handled(&self, reader: &Reader, messages: &[Uuid]) -> Result<Vec<Uuid>, ReadModelError> {
        self.memory.handled(reader, messages).await
    }

    async fn stopped(&self, lease: &Lease, event: &RecordedEvent, cause: &str) -> Result<(), ReadModelError> {
        self.memory.stopped(lease, event, cause).await
    }

    async fn paused(&self, reader: &str) -> Result<Option<Pause>, ReadModelError> {
        self.memory.paused(reader).await
    }

    async fn shares(&self, reader: &Reader) -> Result<Vec<Share>, ReadModelError> {
        self.memory.shares(reader).await
    }

    async fn ask_for(&self, reader: &Reader, shards: &[Shard]) -> Result<(), ReadModelError> {
        self.memory.ask_for(reader, shards).await
    }
}

#[async_trait]
impl DeadLetters for Watched {
    async fn dead_letters(&self, reader: &str, page: &LetterPage) -> Result<Vec<DeadLetter>, ReadModelError> {
        self.memory.dead_letters(reader, page).await
    }

    async fn parked_keys(&self, reader: &str) -> Result<Vec<ParkedKey>, ReadModelError> {
        self.memory.parked_keys(reader).await
    }

    async fn request_retry(&self, reader: &str, key: &str, act: &Act) -> Result<(), ActError> {
        self.memory.request_retry(reader, key, act).await
    }

    async fn discard_letters(
        &self,
        reader: &str,
        key: &str,
        position: Option<Position>,
        act: &Act,
    ) -> Result<u64, ActError> {
        self.memory.discard_letters(reader, key, position, act).await
    }

    async fn edit_letter(
        &self,
        reader: &str,
        key: &str,
        position: Position,
        payload: Bytes,
        act: &Act,
    ) -> Result<(), ActError> {
        self.memory.edit_letter(reader, key, position, payload, act).await
    }
}

#[async_trait]
impl Operations for Watched {
    async fn pause(&self, reader: &str, act: &Act) -> Result<(), ActError> {
        self.memory.pause(reader, act).await
    }

    async fn resume(&self, reader: &str, act: &Act) -> Result<(), ActError> {
        self.memory.resume(reader, act).await
    }

    async fn skip(
        &self,
        reader: &str,
        shard: &Shard,
        position: Position,
        event_id: Uuid,
        act: &Act,
    ) -> Result<(), ActError> {
        self.memory.skip(reader, shard, position, event_id, act).await
    }

    async fn cancel_rebuild(&self, reader: &str, act: &Act) -> Result<(), ActError> {
        self.memory.cancel_rebuild(reader, act).await
    }

    async fn stops(&self, reader: &str) -> Result<Vec<StoppedAt>, ReadModelError> {
        self.memory.stops(reader).await
    }

    async fn exceptions(&self, reader: &Reader) -> Result<Exceptions, ReadModelError> {
        let told = self.noted.excepts.lock().expect("nothing panics under it").take();
        match told {
            Some(exceptions) => Ok(exceptions),
            None => self.memory.exceptions(reader).await,
        }
    }

    async fn record(&self, what: &str, reader: &str, act: &Act) -> Result<(), ReadModelError> {
        self.memory.record(what, reader, act).await
    }

    async fn acts(&self, before: Option<i64>, limit: usize) -> Result<Vec<ActRecord>, ReadModelError> {
        self.memory.acts(before, limit).await
    }
}

/// What a source delivers next.
#[derive(Debug)]
pub(crate) enum Say {
    Next(Delivery),
    /// Before the worker waits for what comes next.
    Urgent(Delivery),
    /// This shard becomes free.
    Free(Lease),
    /// All leases of the worker are lost.
    LoseAll,
}

/// A source that delivers what a test says, and then ends its worker.
#[derive(Debug)]
pub(crate) struct Script {
    store: Watched,
    says: Mutex<VecDeque<Say>>,
    started: Arc<Mutex<Vec<Shard>>>,
    end: CancellationToken,
}

impl Script {
    /// It cancels `end` after the last delivery.
    pub(crate) fn new(store: Watched, says: impl IntoIterator<Item = Say>, end: CancellationToken) -> Self {
        Self { store, says: Mutex::new(says.into_iter().collect()), started: Arc::default(), end }
    }

    /// The shards that were started, in this order.
    pub(crate) fn started(&self) -> Vec<Shard> {
        self.started.lock().expect("nothing panics under it").clone()
    }
}

#[async_trait]
impl EventSource for Script {
    async fn open(&self, _: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        let says = std::mem::take(&mut *self.says.lock().expect("nothing panics under it"));
        let (store, started, end) = (self.store.clone(), self.started.clone(), self.end.clone());
        Ok(Box::new(Scripted { store, says, started, end }))
    }
}

#[derive(Debug)]
struct Scripted {
    store: Watched,
    says: VecDeque<Say>,
    started: Arc<Mutex<Vec<Shard>>>,
    end: CancellationToken,
}

#[async_trait]
impl EventFeed for Scripted {
    fn shards(&self) -> Vec<Shard> {
        Vec::new()
    }

    fn takeover(&self) -> Takeover {
        Takeover::WhenFree
    }

    async fn next(&mut self) -> Result<Delivery, SourceError> {
        match self.says.pop_front() {
            Some(Say::Next(delivery) | Say::Urgent(delivery)) => Ok(delivery),
            Some(Say::Free(lease)) => {
                self.store.memory.release(&lease).await.expect("released");
                Ok(Delivery::Idle)
            }
            Some(Say::LoseAll) => {
                self.store.loses_all();
                Ok(Delivery::Idle)
            }
            None => {
                self.end.cancel();
                std::future::pending().await
            }
        }
    }

    fn urgent(&mut self) -> Option<Delivery> {
        match self.says.pop_front_if(|say| matches!(say, Say::Urgent(_)))? {
            Say::Urgent(delivery) => Some(delivery),
            _ => None,
        }
    }

    async fn start(&mut self, shard: &Shard, _: &Checkpoint) -> Result<(), SourceError> {
        self.started.lock().expect("nothing panics under it").push(shard.clone());
        Ok(())
    }
}

/// A checkpoint at `position`.
pub(crate) fn checkpoint(position: u64) -> Checkpoint {
    Checkpoint { position: Position::new(position), ..Checkpoint::default() }
}
