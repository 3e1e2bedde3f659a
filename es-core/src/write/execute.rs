//! Commands: load, handle, append; and again after a conflict.

mod error;
mod finish;
mod line;
mod lines;
mod load;
#[cfg(test)]
mod tests;

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use serde::Serialize;
use tokio::{
    sync::{MutexGuard, Semaphore},
    time::Instant,
};
use tracing::Instrument;

pub use self::{
    error::ExecuteError,
    load::{LoadError, Loaded},
};
use self::{
    finish::{Finished, MOST_ABANDONED},
    line::{Line, Tip},
    lines::{Limits, Lines},
};
use crate::{
    backoff::Backoff,
    event::{Event, Metadata, NewEvent, NewEventError},
    stream::{Conflict, Expected, InvalidStream, Position, ReadToken, StreamId, Version},
    telemetry::{CommandMeter, spans},
    witness::Ending,
    write::{
        aggregate::Aggregate,
        append::{Append, CommandKey, Fingerprint, IdempotencyKey},
        snapshot::{AggregateStore, Snapshot},
        store::{AppendError, Appended},
    },
};

/// Executes commands on the aggregates of one kind.
///
/// States are cached (10,000 of them and 256 MiB, unless set otherwise), so that a command on a recently used
/// aggregate costs one round trip, and commands of this process on one aggregate share commits. The
/// cache is never trusted: an append expects the very event with which the state that it was decided on
/// ends, and a refusal is given only on a state that was read after the command came.
///
/// Clones share the cache.
///
/// # Panics
/// Its futures panic outside of a tokio runtime with time enabled.
#[derive(Debug)]
pub struct Repository<A: Aggregate> {
    store: Arc<dyn AggregateStore>,
    lines: Arc<Lines<A>>,
    limits: Limits,
    abandoned: Arc<Semaphore>,
    settings: Settings,
    meter: Arc<CommandMeter>,
}

#[derive(Debug, Clone, Copy)]
struct Settings {
    snapshot_every: Option<u64>,
    attempts: u32,
    backoff: Backoff,
}

/// A command, and where it goes.
struct Request<A: Aggregate> {
    stream: StreamId,
    line: Arc<Line<A>>,
    command: A::Command,
    context: CommandContext,
}

/// On which state a command is decided. A known one is as good as the append that checks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Basis {
    /// The newest that is known here; where there is none, one that is read.
    Known,
    /// The newest that is known here; where there is none, that of an aggregate to which nothing has happened. The append
    /// finds out.
    Presumed,
    /// One that is read now. Whatever ends without an append (a refusal, or nothing to do) is decided on it, since no append
    /// checks that.
    Read,
}

/// What became of one attempt at a command.
enum Attempt {
    Done(Receipt),
    /// It ends without an append, and was decided on a state that was not read for it.
    Unchecked,
    /// The stream has events after the state on which it was decided.
    Conflict,
}

/// How long a command waits after conflicts, so that rivals do not meet again: up to 2 ms for each of them. A conflict costs
/// the server little, so the pause need not double.
pub(super) const AFTER_CONFLICT: Backoff = Backoff::linear(Duration::from_millis(2), Duration::from_millis(32));

impl<A: Aggregate> Clone for Repository<A> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            lines: self.lines.clone(),
            limits: self.limits,
            abandoned: self.abandoned.clone(),
            settings: self.settings,
            meter: self.meter.clone(),
        }
    }
}

/// What a command has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// The aggregate's version after the command.
    pub version: Version,
    /// The position of the command's last event; `None` for a command without events.
    pub position: Option<Position>,
    /// What a reader can wait for to see the effect (R13). For a command without events there is nothing to wait for: such a
    /// token is there at once.
    pub token: ReadToken,
    /// Whether an earlier request under the same idempotency key had done it already (R6).
    pub repeated: bool,
}

impl From<Appended> for Receipt {
    fn from(appended: Appended) -> Self {
        let Appended { version, position, repeated } = appended;
        Self { version, position: Some(position), token: ReadToken(position), repeated }
    }
}

impl Receipt {
    /// That of a command without events on a stream of `version`.
    pub(crate) const fn without_events(version: Version) -> Self {
        Self { version, position: None, token: ReadToken(Position::ZERO), repeated: false }
    }
}

/// What goes with a command beside its content.
#[derive(Debug, Clone, Default)]
pub struct CommandContext {
    /// Goes onto every event of the command.
    pub metadata: Metadata,
    /// The client's name for the request: asked again under the same key, it gets the first
    /// outcome (R6). The outcome is remembered with the command's events: a command that was
    /// refused, or that had none, is decided anew.
    pub idempotency: Option<CommandKey>,
    /// The version that the client has seen: the command is refused on any other. Say 0 of an aggregate that is to begin with
    /// this command: then it is not looked for, which saves a round trip.
    pub if_version: Option<Version>,
}

impl CommandContext {
    /// Names the request `key`; `content` is what distinguishes it from another request.
    pub fn idempotent(self, key: IdempotencyKey, content: &[u8]) -> Self {
        Self { idempotency: Some(CommandKey::new(key, Fingerprint::of(content))), ..self }
    }
}

impl From<Metadata> for CommandContext {
    fn from(metadata: Metadata) -> Self {
        Self { metadata, ..Self::default() }
    }
}

impl<A: Aggregate> Repository<A> {
    /// The aggregates in `store`.
    pub fn new(store: impl AggregateStore) -> Self {
        let store = Arc::new(store);
        let settings = Settings { snapshot_every: Some(100), attempts: 16, backoff: AFTER_CONFLICT };
        let limits = Limits { states: 10_000, bytes: 256 * 1024 * 1024 };
        let abandoned = Arc::new(Semaphore::new(MOST_ABANDONED));
        let meter = Arc::new(CommandMeter::of(A::Event::CATEGORY));
        Self { store, lines: Arc::new(Lines::new(limits)), limits, abandoned, settings, meter }
    }

    /// Takes a snapshot whenever a command crosses a multiple of `events` (100, unless set
    /// otherwise); 0 takes none and looks for none.
    pub fn snapshot_every(mut self, events: u64) -> Self {
        self.settings.snapshot_every = Some(events).filter(|events| *events > 0);
        self
    }

    /// Caches up to `states` states (10,000, unless set otherwise); 0 caches none.
    pub fn cache(self, states: usize) -> Self {
        let limits = Limits { states, ..self.limits };
        Self { lines: Arc::new(Lines::new(limits)), limits, ..self }
    }

    /// Caches states of up to `bytes` together (256 MiB, unless set otherwise). The size of a state is estimated by its
    /// snapshot and the payloads folded since, and by its JSON where these are more. The cache has up to eight parts; a state
    /// that is larger than a part is read for each command.
    pub fn cache_bytes(self, bytes: u64) -> Self {
        let limits = Limits { bytes, ..self.limits };
        Self { lines: Arc::new(Lines::new(limits)), limits, ..self }
    }

    /// What the cached states weigh together by that estimate; each counts at least its share of the limit.
    pub fn cached_bytes(&self) -> u64 {
        self.lines.bytes()
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
        self.execute_with(id, command, CommandContext::default()).await
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
        mut context: CommandContext,
    ) -> Result<Receipt, ExecuteError<A::Error>> {
        let began = Instant::now();
        let span = spans::execute(A::Event::CATEGORY, id.as_ref(), &mut context.metadata);
        let outcome = self.outcome(id.as_ref(), command, context).instrument(span).await;
        self.meter.executed(began, &outcome);
        outcome
    }

    async fn outcome(
        &self,
        id: &str,
        command: A::Command,
        context: CommandContext,
    ) -> Result<Receipt, ExecuteError<A::Error>> {
        let stream = self.stream(id)?;
        let mut basis = if context.if_version == Some(Version::ZERO) { Basis::Presumed } else { Basis::Known };
        let request = Request { line: self.line(&stream), stream, command, context };
        let mut conflicts = 0;
        loop {
            match self.attempt(&request, basis).await? {
                Attempt::Done(receipt) => return Ok(receipt),
                Attempt::Unchecked => basis = Basis::Read,
                Attempt::Conflict => {
                    conflicts += 1;
                    self.meter.conflict();
                    if conflicts == self.settings.attempts {
                        return Err(ExecuteError::Contended { attempts: conflicts });
                    }
                    tokio::time::sleep(self.settings.backoff.pause(conflicts)).await;
                    // What another command of this process reads meanwhile is as good again: an append is to check it.
                    basis = Basis::Known;
                }
            }
        }
    }

    /// Decides once, and appends what was decided.
    async fn attempt(&self, request: &Request<A>, basis: Basis) -> Result<Attempt, ExecuteError<A::Error>> {
        let Request { stream, line, command, context } = request;
        let mut tip = line.lock().await;
        let known = match basis {
            Basis::Known => tip.newest(),
            Basis::Presumed => tip.newest().or_else(|| Some(Arc::default())),
            Basis::Read => None,
        };
        let is_fresh = known.is_none();
        self.meter.state(is_fresh);
        let current = match known {
            Some(known) => known,
            None => self.read(stream, line, &mut tip).await?,
        };
        let refusal = match decide(stream, &current, command, context) {
            Ok(decision) if !decision.events.is_empty() => {
                return match self.append(line.clone(), tip, &current, decision).await {
                    Err(AppendError::Conflict(_)) => Ok(Attempt::Conflict),
                    outcome => Ok(Attempt::Done(outcome?)),
                };
            }
            Ok(_) => None,
            Err(refusal) => Some(refusal),
        };
        drop(tip);
        if !is_fresh {
            return Ok(Attempt::Unchecked);
        }
        // Its own success may be the reason to refuse by now.
        if let Some(receipt) = self.repeated(stream, context).await? {
            return Ok(Attempt::Done(receipt));
        }
        refusal.map_or_else(|| Ok(Attempt::Done(Receipt::without_events(current.version))), Err)
    }

    /// The aggregate `id` as it is now (at version 0 if nothing has happened to it).
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load(&self, id: &str) -> Result<Loaded<A>, LoadError> {
        let stream = self.stream(id)?;
        let line = self.line(&stream);
        let known = line.lock().await.written();
        let state = self.read_from(&stream, known.clone()).await?;
        let mut tip = line.lock().await;
        // Unless a command has gone on meanwhile: then it knows more.
        if tip.written().map(|written| written.version) == known.map(|known| known.version) {
            tip.has_read(state.clone());
            self.lines.weigh(&stream, &line, &state);
        }
        drop(tip);
        Ok(Arc::unwrap_or_clone(state))
    }

    /// As [`load`](Self::load), but without reading it where a state is known here that is of `version` at least. It may have changed since.
    pub(crate) async fn load_since(&self, id: &str, version: Version) -> Result<Loaded<A>, LoadError> {
        let line = self.line(&self.stream(id)?);
        let known = line.lock().await.written();
        match known.filter(|known| known.version >= version) {
            Some(known) => Ok(Arc::unwrap_or_clone(known)),
            None => self.load(id).await,
        }
    }

    /// The aggregate `id` as it was at `version`, `None` when it has not come so far.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load_at(&self, id: &str, version: Version) -> Result<Option<Loaded<A>>, LoadError> {
        load::load_at(&*self.store, &self.stream(id)?, version).await
    }

    /// The stream of the aggregate `id`.
    ///
    /// # Errors
    /// [`InvalidStream`] when the id breaks a rule.
    pub fn stream(&self, id: &str) -> Result<StreamId, InvalidStream> {
        StreamId::new(A::Event::CATEGORY, id)
    }

    fn line(&self, stream: &StreamId) -> Arc<Line<A>> {
        self.lines.of(stream)
    }

    /// The state as of now. Who is next in line waits, and finds it.
    async fn read(&self, stream: &StreamId, line: &Line<A>, tip: &mut Tip<A>) -> Result<Arc<Loaded<A>>, LoadError> {
        let state = self.read_from(stream, tip.written()).await?;
        tip.has_read(state.clone());
        self.lines.weigh(stream, line, &state);
        Ok(state)
    }

    async fn read_from(&self, stream: &StreamId, known: Option<Arc<Loaded<A>>>) -> Result<Arc<Loaded<A>>, LoadError> {
        let snapshots = self.settings.snapshot_every.is_some();
        let state = match known {
            Some(known) => load::catch_up(&*self.store, stream, Arc::unwrap_or_clone(known)).await,
            None => load::load(&*self.store, stream, snapshots).await,
        };
        state.map(|state| Arc::new(state.measured()))
    }

    /// Sends what was decided on `current` and lets the next in line decide on what it brings about.
    async fn append(
        &self,
        line: Arc<Line<A>>,
        mut tip: MutexGuard<'_, Tip<A>>,
        current: &Loaded<A>,
        decision: Decision<A>,
    ) -> Result<Receipt, AppendError> {
        let mut after = current.clone();
        for (event, new) in decision.events.iter().zip(&decision.append.events) {
            after.apply(event, Ending::sent(new.id), new.data.payload.len());
        }
        let after = Arc::new(after.measured());
        let stream = decision.append.stream.clone();
        let era = tip.era();
        let span = spans::append(std::slice::from_ref(&decision.append));
        let append = {
            let (store, lines) = (self.store.clone(), self.lines.clone());
            let (stream, after) = (stream.clone(), after.clone());
            async move {
                let outcome = store.append(decision.append).instrument(span).await;
                let mut tip = line.lock().await;
                match &outcome {
                    Ok(appended) if !appended.repeated => {
                        tip.has_written(after.clone());
                        lines.weigh(&stream, &line, &after);
                    }
                    // Of a repeated command other events stand in the log than those that were decided now.
                    _ => tip.was_refuted(era),
                }
                outcome
            }
        };
        // From the first poll on the next in line may build on it, so it must come to its end, whatever becomes of the caller.
        let mut append = Finished::new(append, self.abandoned.clone());
        // A store takes its place in the queue when it is first polled, so what was decided first is
        // first in the queue too.
        let first = poll_fn(|context| Poll::Ready(Pin::new(&mut append).poll(context))).await;
        tip.has_decided(after.clone());
        drop(tip);
        let appended = match first {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => append.await,
        }?;
        if !appended.repeated {
            self.save_snapshot(&stream, current.version, &after).await;
        }
        Ok(appended.into())
    }

    async fn save_snapshot(&self, stream: &StreamId, before: Version, after: &Loaded<A>) {
        let Some(every) = self.settings.snapshot_every else { return };
        if before.get() / every == after.version.get() / every {
            return;
        }
        let of = |last| Snapshot::of(stream.clone(), after.version, last, &after.state, after.folded());
        let snapshot = after.last().and_then(of);
        if let Some(snapshot) = snapshot
            && let Err(error) = self.store.save_snapshot(snapshot).await
        {
            tracing::warn!(%stream, error = &error as &dyn std::error::Error, "cannot save the snapshot");
        }
    }

    /// The outcome of an earlier request under the same key (R6).
    async fn repeated(
        &self,
        stream: &StreamId,
        context: &CommandContext,
    ) -> Result<Option<Receipt>, ExecuteError<A::Error>> {
        let Some(command) = &context.idempotency else { return Ok(None) };
        let record = self.store.find_command(stream, &command.key).await.map_err(LoadError::Read)?;
        Ok(record.map(|record| record.repeat(command.fingerprint)).transpose()?.map(Receipt::from))
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
    context: &CommandContext,
) -> Result<Decision<A>, ExecuteError<A::Error>> {
    if let Some(seen) = context.if_version.filter(|seen| *seen != current.version) {
        let (stream, expected) = (stream.clone(), Expected::Exact(seen));
        return Err(ExecuteError::Stale(Conflict { stream, expected, actual: current.version }));
    }
    let events = current.state.handle(command).map_err(ExecuteError::Rejected)?;
    let new = |event| Ok(NewEvent::of(event)?.with_metadata(context.metadata.clone()));
    let new = events.iter().map(new).collect::<Result<_, NewEventError>>()?;
    let append =
        Append { command: context.idempotency.clone(), ..Append::new(stream.clone(), current.expected(), new) };
    Ok(Decision { events, append })
}
