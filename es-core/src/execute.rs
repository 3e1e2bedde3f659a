//! Commands: load, handle, append, and again if somebody was faster.

use std::{sync::Arc, time::Duration};

use quick_cache::sync::Cache;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    aggregate::Aggregate,
    append::{Append, Command, Fingerprint, IdempotencyKey},
    event::{Event, EventData, Metadata, NewEvent, RecordedEvent},
    query::Token,
    schema::{DecodeError, EncodeError},
    snapshot::{Snapshot, SnapshotStore},
    store::{AppendError, Appended, Conflict, EventStore, ReadError},
    stream::{Expected, InvalidStream, Position, StreamId, Version},
};

/// How many events are read at once while an aggregate is loaded.
const PAGE: usize = 1_000;

/// Executes commands on the aggregates of one kind.
///
/// States are cached (10,000 of them, unless set otherwise), so that a command on a recently used
/// aggregate costs one round trip. The cache is never trusted: the append is conditional on its
/// version, and a refusal is given only on a state that was read after the command came.
///
/// Clones share the cache.
#[derive(Debug)]
pub struct Repository<A: Aggregate> {
    store: Arc<dyn EventStore>,
    snapshots: Arc<dyn SnapshotStore>,
    cache: Arc<Cache<StreamId, Loaded<A>>>,
    settings: Settings,
}

#[derive(Debug, Clone, Copy)]
struct Settings {
    snapshot_every: Option<u64>,
    attempts: u32,
    backoff: Duration,
}

impl<A: Aggregate> Clone for Repository<A> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            snapshots: self.snapshots.clone(),
            cache: self.cache.clone(),
            settings: self.settings,
        }
    }
}

/// An aggregate's state at a version.
#[derive(Debug, Clone, Default)]
pub struct Loaded<A> {
    /// The fold of its events.
    pub state: A,
    /// How many events that were.
    pub version: Version,
    /// The last of them.
    last: Option<Uuid>,
}

impl<A: Aggregate> Loaded<A> {
    fn apply(&mut self, event: &A::Event, id: Uuid) {
        self.state.apply(event);
        self.version = self.version.next();
        self.last = Some(id);
    }

    fn fold(&mut self, event: &RecordedEvent) -> Result<(), LoadError> {
        if event.version != self.version.next() {
            return Err(LoadError::Gap { stream: event.stream.clone(), after: self.version, found: event.version });
        }
        if let Some(decoded) = event.decode::<A::Event>()? {
            self.apply(&decoded.data, event.id);
        }
        Ok(())
    }
}

/// What a command has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// The aggregate's version after the command.
    pub version: Version,
    /// The position of the command's last event; for a command without events, 0.
    pub position: Position,
    /// What a reader can wait for to see the effect (R13).
    pub token: Token,
    /// Whether an earlier request under the same idempotency key had done it already (R6).
    pub repeated: bool,
}

impl From<Appended> for Receipt {
    fn from(appended: Appended) -> Self {
        let Appended { version, position, repeated } = appended;
        Self { version, position, token: Token(position), repeated }
    }
}

/// What goes with a command beside its content.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Goes onto every event of the command.
    pub metadata: Metadata,
    /// The client's name for the request: asked again under the same key, it gets the first
    /// outcome (R6). The outcome is remembered with the command's events: a command that was
    /// refused, or that had none, is decided anew.
    pub idempotency: Option<Command>,
    /// The version that the client has seen: the command is refused on any other.
    pub if_version: Option<Version>,
}

impl Context {
    /// Names the request `key`; `content` is what distinguishes it from another request.
    pub fn idempotent(self, key: IdempotencyKey, content: &[u8]) -> Self {
        Self { idempotency: Some(Command { key, fingerprint: Fingerprint::of(content) }), ..self }
    }
}

impl From<Metadata> for Context {
    fn from(metadata: Metadata) -> Self {
        Self { metadata, ..Self::default() }
    }
}

impl<A: Aggregate> Repository<A> {
    /// The aggregates in `store`, with its snapshots.
    pub fn new<S: EventStore + SnapshotStore + Clone>(store: &S) -> Self {
        Self::with_snapshots(Arc::new(store.clone()), Arc::new(store.clone()))
    }

    /// The aggregates in `store` with snapshots in another place.
    pub fn with_snapshots(store: Arc<dyn EventStore>, snapshots: Arc<dyn SnapshotStore>) -> Self {
        let settings = Settings { snapshot_every: Some(100), attempts: 16, backoff: Duration::from_millis(2) };
        Self { store, snapshots, cache: Arc::new(Cache::new(10_000)), settings }
    }

    /// Takes a snapshot whenever a command crosses a multiple of `events` (100, unless set
    /// otherwise); 0 takes none.
    pub fn snapshot_every(mut self, events: u64) -> Self {
        self.settings.snapshot_every = Some(events).filter(|events| *events > 0);
        self
    }

    /// Caches up to `states` states; 0 caches none.
    pub fn cache(mut self, states: usize) -> Self {
        self.cache = Arc::new(Cache::new(states));
        self
    }

    /// Tries a command at most `attempts` times (16, unless set otherwise) when others are faster.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.settings.attempts = attempts.max(1);
        self
    }

    /// Executes `command` on the aggregate `id`.
    ///
    /// # Errors
    /// [`ExecuteError::Rejected`] is the aggregate's own refusal.
    ///
    /// # Cancel safety
    /// Dropping the future leaves either none or all of the command's events in the log (R7).
    pub async fn execute(
        &self,
        id: impl AsRef<str> + Send,
        command: A::Command,
    ) -> Result<Receipt, ExecuteError<A::Error>> {
        self.execute_with(id, command, Context::default()).await
    }

    /// Executes `command` on the aggregate `id`, with metadata, an idempotency key, or the
    /// condition that the aggregate still has the version that the client saw.
    ///
    /// # Errors
    /// [`ExecuteError::Rejected`] is the aggregate's own refusal.
    ///
    /// # Cancel safety
    /// Dropping the future leaves either none or all of the command's events in the log (R7).
    pub async fn execute_with(
        &self,
        id: impl AsRef<str> + Send,
        command: A::Command,
        context: Context,
    ) -> Result<Receipt, ExecuteError<A::Error>> {
        let stream = self.stream(id.as_ref())?;
        // A cached state is as good as the append that checks it. Whatever ends without an append
        // (a refusal, no events, a repeated request) is decided on a state that was read now.
        let (mut current, mut fresh) = match self.cache.get(&stream) {
            Some(cached) if context.idempotency.is_none() => (cached, false),
            known => (self.read(&stream, known).await?, true),
        };
        for attempt in 1..=self.settings.attempts {
            if fresh && let Some(receipt) = self.repeated(&stream, &context).await? {
                return Ok(receipt);
            }
            match decide(&stream, &current, &command, &context) {
                Ok(decision) if !decision.events.is_empty() => match self.append(&current, decision).await {
                    Err(AppendError::Conflict(_)) => self.back_off(attempt).await,
                    outcome => return Ok(outcome?),
                },
                Ok(_) if fresh => {
                    let position = Position::ZERO;
                    return Ok(Receipt::from(Appended { version: current.version, position, repeated: false }));
                }
                Err(refusal) if fresh => return Err(refusal),
                Ok(_) | Err(_) => {}
            }
            current = self.read(&stream, Some(current)).await?;
            fresh = true;
        }
        Err(ExecuteError::Contended { attempts: self.settings.attempts })
    }

    /// The aggregate `id` as it is now (at version 0 if nothing has happened to it).
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load(&self, id: &str) -> Result<Loaded<A>, LoadError> {
        let stream = self.stream(id)?;
        let known = self.cache.get(&stream);
        self.read(&stream, known).await
    }

    /// The aggregate `id` as it was at `version`, `None` when it has not come so far.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load_at(&self, id: &str, version: Version) -> Result<Option<Loaded<A>>, LoadError> {
        let stream = self.stream(id)?;
        let mut loaded = Loaded::default();
        while loaded.version < version {
            let missing = usize::try_from(version.get() - loaded.version.get()).unwrap_or(PAGE);
            let page = self.store.read_stream(&stream, loaded.version, missing.min(PAGE)).await?;
            if page.is_empty() {
                return Ok(None);
            }
            page.iter().try_for_each(|event| loaded.fold(event))?;
        }
        Ok(Some(loaded))
    }

    /// The stream of the aggregate `id`.
    ///
    /// # Errors
    /// [`InvalidStream`] when the id breaks a rule.
    pub fn stream(&self, id: &str) -> Result<StreamId, InvalidStream> {
        StreamId::new(A::Event::CATEGORY, id)
    }

    /// The state as of now: what is known already (from the cache, else from a snapshot) and the
    /// tail behind it.
    async fn read(&self, stream: &StreamId, known: Option<Loaded<A>>) -> Result<Loaded<A>, LoadError> {
        let known = match known {
            Some(known) => Some(known),
            None => self.open_snapshot(stream).await,
        };
        let loaded = match known {
            Some(known) if known.version > Version::ZERO => match self.read_tail(stream, known).await? {
                Some(loaded) => loaded,
                None => self.read_pages(stream, Loaded::default()).await?,
            },
            _ => self.read_pages(stream, Loaded::default()).await?,
        };
        if loaded.version > Version::ZERO {
            self.cache.insert(stream.clone(), loaded.clone());
        }
        Ok(loaded)
    }

    /// The tail behind `known`; `None` when the stream does not hold the event with which `known`
    /// ends: it is a state of another history, for example of before a restore (R8).
    async fn read_tail(&self, stream: &StreamId, mut known: Loaded<A>) -> Result<Option<Loaded<A>>, LoadError> {
        let before = Version::new(known.version.get() - 1);
        let events = self.store.read_stream(stream, before, PAGE).await?;
        match events.split_first() {
            Some((last, tail)) if Some(last.id) == known.last => {
                tail.iter().try_for_each(|event| known.fold(event))?;
                if events.len() < PAGE { Ok(Some(known)) } else { self.read_pages(stream, known).await.map(Some) }
            }
            _ => Ok(None),
        }
    }

    async fn read_pages(&self, stream: &StreamId, mut loaded: Loaded<A>) -> Result<Loaded<A>, LoadError> {
        loop {
            let page = self.store.read_stream(stream, loaded.version, PAGE).await?;
            page.iter().try_for_each(|event| loaded.fold(event))?;
            if page.len() < PAGE {
                return Ok(loaded);
            }
        }
    }

    /// A snapshot only saves time: one that cannot be had is as good as none (R8).
    async fn open_snapshot(&self, stream: &StreamId) -> Option<Loaded<A>> {
        self.settings.snapshot_every?;
        match self.snapshots.load_snapshot(stream).await {
            Ok(snapshot) => snapshot.and_then(|snapshot| {
                let state = snapshot.open().filter(|_| snapshot.stream == *stream)?;
                Some(Loaded { state, version: snapshot.version, last: Some(snapshot.event_id) })
            }),
            Err(error) => {
                tracing::warn!(%stream, error = &error as &dyn std::error::Error, "cannot load the snapshot");
                None
            }
        }
    }

    async fn save_snapshot(&self, stream: &StreamId, before: Version, after: &Loaded<A>) {
        let Some(every) = self.settings.snapshot_every else { return };
        if before.get() / every == after.version.get() / every {
            return;
        }
        let snapshot = after.last.and_then(|last| Snapshot::of(stream.clone(), after.version, last, &after.state));
        if let Some(snapshot) = snapshot
            && let Err(error) = self.snapshots.save_snapshot(snapshot).await
        {
            tracing::warn!(%stream, error = &error as &dyn std::error::Error, "cannot save the snapshot");
        }
    }

    async fn append(&self, current: &Loaded<A>, decision: Decision<A>) -> Result<Receipt, AppendError> {
        let Decision { events, append } = decision;
        let stream = append.stream.clone();
        let ids: Vec<Uuid> = append.events.iter().map(|event| event.id).collect();
        let appended = self.store.append(append).await?;
        if appended.repeated {
            // These are not the events that were written then: let the next command read them.
            self.cache.remove(&stream);
        } else {
            let mut after = current.clone();
            events.iter().zip(ids).for_each(|(event, id)| after.apply(event, id));
            self.cache.insert(stream.clone(), after.clone());
            self.save_snapshot(&stream, current.version, &after).await;
        }
        Ok(appended.into())
    }

    /// The outcome of an earlier request under the same key (R6).
    async fn repeated(&self, stream: &StreamId, context: &Context) -> Result<Option<Receipt>, ExecuteError<A::Error>> {
        let Some(command) = &context.idempotency else { return Ok(None) };
        let record = self.store.find_command(stream, &command.key).await.map_err(LoadError::Read)?;
        Ok(record.map(|record| record.repeat(command.fingerprint)).transpose()?.map(Receipt::from))
    }

    /// Waits a random time that grows with the attempts, so that rivals do not meet again.
    async fn back_off(&self, attempt: u32) {
        let longest = self.settings.backoff * attempt.min(16);
        tokio::time::sleep(longest.mul_f64(fastrand::f64())).await;
    }
}

struct Decision<A: Aggregate> {
    events: Vec<A::Event>,
    append: Append,
}

fn decide<A: Aggregate>(
    stream: &StreamId,
    current: &Loaded<A>,
    command: &A::Command,
    context: &Context,
) -> Result<Decision<A>, ExecuteError<A::Error>> {
    if let Some(seen) = context.if_version.filter(|seen| *seen != current.version) {
        return Err(ExecuteError::Stale(Conflict { expected: Expected::Exact(seen), actual: current.version }));
    }
    let events = current.state.handle(command).map_err(ExecuteError::Rejected)?;
    let new =
        |event| Ok(NewEvent { id: Uuid::now_v7(), data: EventData::of(event)?, metadata: context.metadata.clone() });
    let append = Append {
        stream: stream.clone(),
        expected: Expected::Exact(current.version),
        events: events.iter().map(new).collect::<Result<_, EncodeError>>()?,
        command: context.idempotency.clone(),
    };
    Ok(Decision { events, append })
}

/// Why an aggregate could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The id cannot be part of a stream's name.
    #[error("the aggregate's id is invalid")]
    Stream(#[from] InvalidStream),
    /// The store failed.
    #[error("the stream cannot be read")]
    Read(#[from] ReadError),
    /// An event cannot be read (R14).
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The stream is not contiguous: an event is missing where density promises one (R3).
    #[error("stream {stream} has a gap: version {found} follows {after}")]
    Gap {
        /// Which stream.
        stream: StreamId,
        /// The last version before the gap.
        after: Version,
        /// The first version behind it.
        found: Version,
    },
}

/// Why a command was not executed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError<E: std::error::Error + 'static> {
    /// The aggregate refuses: its own words, untouched.
    #[error(transparent)]
    Rejected(E),
    /// The aggregate no longer has the version that the client saw ([`Context::if_version`]).
    #[error("the aggregate has changed since it was read")]
    Stale(#[source] Conflict),
    /// Others were faster every time.
    #[error("other commands were faster, {attempts} times")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// The aggregate could not be loaded.
    #[error("the aggregate cannot be loaded")]
    Load(#[source] LoadError),
    /// An event cannot be written as JSON.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The events could not be appended.
    #[error("the events cannot be appended")]
    Append(#[from] AppendError),
}

impl<E: std::error::Error + 'static, L: Into<LoadError>> From<L> for ExecuteError<E> {
    fn from(error: L) -> Self {
        Self::Load(error.into())
    }
}
