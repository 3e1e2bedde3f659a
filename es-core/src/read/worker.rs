//! The common part of projectors, rebuilds and policies: a worker passes the batches of its shards to a handler and commits
//! them.

mod handler;
mod letters;
mod rest;
mod sent;
mod shards;
mod unique;
#[cfg(test)]
mod tests;

pub(crate) use handler::{Course, Events, Handled, Handler};

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    ops::ControlFlow,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use self::sent::Sent;
use crate::{
    backoff::{Backoff, Failures},
    event::RecordedEvent,
    of_engine::of_engine,
    read::{
        engine_error::EngineError,
        failure::{Attempts, Decision, cause_of},
        read_model::{Acts, Changes, Checkpoint, CommitError, Lease, Leases, Reader, Shard},
        source::{Batch, BatchEvents, Delivery, EventFeed, EventSource, Subscription},
        worker_state::StateReport,
    },
    stream::Position,
    telemetry::{self, HeldLease, ReaderMeter, spans},
    witness::Witness,
};

/// The boxed future of a step of an engine. (The future of an async closure has no name, so the compiler could not prove that
/// an engine that awaits it is `Send`.)
pub(crate) type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, EngineError>> + Send + 'a>>;

/// A handler returns what it has after this time. After a crash no more work than that is repeated (a build keeps more), and a
/// rebalance or a shutdown waits no longer.
pub(crate) const HANDLE_FOR: Duration = Duration::from_secs(1);

/// How long a lease lasts by default. It is renewed after half of that time, and a worker that waits for it tries every half
/// second. So after `kill -9` another worker takes over within 3 s (R18), and a process may stall for a second before it can
/// lose a lease.
pub(crate) const DEFAULT_LEASE: Duration = Duration::from_secs(2);

/// One run of a reader. When a step fails, drop it and open another one, which starts from the committed checkpoints.
pub(crate) struct Worker<'a> {
    handler: &'a dyn Handler,
    store: Arc<dyn Leases>,
    reader: Reader,
    feed: Box<dyn EventFeed>,
    owner: Uuid,
    ttl: Duration,
    meter: ReaderMeter,
    held: HashMap<Shard, Held>,
    /// Assigned shards that it does not hold, each with the time from which it tries to take its lease.
    wanted: HashMap<Shard, Instant>,
    /// When it may ask other workers for shards again.
    asks: Instant,
    /// The rest of a batch whose first part is committed.
    waiting: VecDeque<Batch>,
}

struct Held {
    lease: Lease,
    /// How far the handler has come beyond the last commit, and beyond the one that was sent.
    kept: Option<Checkpoint>,
    /// The commit that is on its way.
    sent: Option<Sent>,
    /// The end of the log when the source had no more events of the shard.
    end: Option<Position>,
    attempts: Attempts,
    /// Whether the source leaves the shard out until the next attempt at an event.
    rests: bool,
    /// The most events for the next commit: fewer where one of them is looked for that makes it fail.
    most: usize,
    /// The keys of the event that is given up whose values of unique fields are taken, and the causes for their letters.
    refused: BTreeMap<String, String>,
    /// The keys of the reader that are parked. Those of other shards do not matter here.
    parked: HashSet<String>,
    /// How many letters the reader has, as far as is known here.
    letters: usize,
    /// Whether another worker asks for the shard.
    is_asked_for: bool,
    /// The acts of operators that are taken into account.
    acts: Acts,
    /// Reports it for as long as it is held.
    _reported: HeldLease,
}

impl Held {
    /// How far the shard is handled, committed or not.
    fn reached(&self) -> &Checkpoint {
        let sent = self.sent.as_ref().map(|sent| &sent.checkpoint);
        self.kept.as_ref().or(sent).unwrap_or(&self.lease.checkpoint)
    }
}

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Another worker holds everything that was assigned to this one.
    Standby,
    /// Events were handled, or assignments changed.
    Worked,
    /// All events that the source has for this worker are handled. The log ends at this position or later.
    AtEnd(Position),
}

impl<'a> Worker<'a> {
    pub(crate) async fn open(
        handler: &'a dyn Handler,
        source: &dyn EventSource,
        subscription: &Subscription,
        store: Arc<dyn Leases>,
        reader: Reader,
        ttl: Duration,
    ) -> Result<Self, EngineError> {
        let feed = source.open(subscription).await?;
        let meter = ReaderMeter::of(&reader.name);
        let (held, wanted, waiting) = (HashMap::new(), HashMap::new(), VecDeque::new());
        let (owner, asks) = (Uuid::now_v7(), Instant::now());
        // By this operators find the process of a worker that holds a lease.
        tracing::info!(name = reader.name, worker = %owner, process = std::process::id(), "a worker has opened its source");
        Ok(Self { handler, store, reader, feed, owner, ttl, meter, held, wanted, asks, waiting })
    }

    /// Makes steps until the shutdown (`None`), or until `after` returns a value.
    pub(crate) async fn run<'b, T>(
        mut self,
        shutdown: &CancellationToken,
        after: impl Fn(Step) -> Pending<'b, ControlFlow<T>>,
    ) -> Result<Option<T>, EngineError> {
        let outcome = loop {
            let step = match self.step(shutdown).await {
                Ok(Some(step)) => step,
                Ok(None) => break Ok(None),
                Err(error) => break Err(error),
            };
            match after(step).await {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(result)) => break Ok(Some(result)),
                Err(error) => break Err(error),
            }
        };
        let outcome = match outcome {
            Ok(None) => self.commit_kept(shutdown).await.map(|()| None),
            ended => ended,
        };
        self.release().await;
        outcome
    }

    /// Commits what the handler keeps: a shutdown throws away no work (R16).
    async fn commit_kept(&mut self, shutdown: &CancellationToken) -> Result<(), EngineError> {
        self.settle_all().await?;
        let kept = self.held.iter().filter_map(|(shard, held)| Some((shard.clone(), held.kept.clone()?)));
        for (shard, checkpoint) in kept.collect::<Vec<_>>() {
            self.fold(Batch { shard, events: BatchEvents::default(), checkpoint, end: None }, true, shutdown).await?;
        }
        Ok(())
    }

    /// Handles what the source delivers next; `None` means the shutdown. What was folded by then is committed (R16).
    async fn step(&mut self, shutdown: &CancellationToken) -> Result<Option<Step>, EngineError> {
        self.end_rests().await?;
        if self.waiting.is_empty() {
            let until = self.rests_until();
            let delivery = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(None),
                delivery = self.feed.next() => Some(delivery?),
                () = until => None,
            };
            if matches!(delivery, Some(Delivery::Idle)) {
                self.commit_kept(shutdown).await?;
            }
            if let Some(delivery) = delivery {
                self.take_in(delivery);
            }
        } else if shutdown.is_cancelled() {
            return Ok(None);
        }
        if let Some(batch) = self.waiting.pop_front()
            && let span = spans::fold(&self.reader.name, &batch.events)
            && let Some(rest) = self.fold(batch, false, shutdown).instrument(span).await?
        {
            self.waiting.push_front(rest);
        }
        // The other members of a group wait until this one notices a rebalance.
        while let Some(urgent) = self.feed.urgent() {
            self.take_in(urgent);
        }
        self.attend(shutdown).await?;
        let mut lost = self.held.values().filter(|held| held.lease.is_lost());
        if let Some(Held { lease, .. }) = lost.next() {
            self.meter.lost(1 + lost.count());
            return Err(EngineError::Fenced(lease.shard.clone()));
        }
        self.take_wanted(shutdown).await?;
        Ok(Some(if self.held.is_empty() { Step::Standby } else { self.end().map_or(Step::Worked, Step::AtEnd) }))
    }

    /// The end of the log, if all events that the source has for this worker are handled: of the shards that are assigned to it, or,
    /// where workers share the shards, of those that it holds.
    fn end(&self) -> Option<Position> {
        let mut ends = self.held.values().map(|held| held.end);
        let end = ends.try_fold(Position::ZERO, |furthest, end| Some(furthest.max(end?)));
        end.filter(|_| self.wanted.is_empty() || self.shares_shards())
    }

    fn take_in(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Assigned(shards) => self.wanted.extend(shards.into_iter().map(|shard| (shard, Instant::now()))),
            Delivery::Revoked(shards) => {
                self.wanted.retain(|shard, _| !shards.contains(shard));
                self.waiting.retain(|batch| !shards.contains(&batch.shard));
                for shard in &shards {
                    self.held.remove(shard);
                    self.handler.forget(shard);
                }
            }
            Delivery::Batch(batch) => self.waiting.push_back(batch),
            Delivery::Idle => {}
        }
    }

    /// Releases the leases, so that the next worker need not wait until they expire.
    async fn release(self) {
        for (shard, held) in self.held {
            if let Some(sent) = held.sent {
                // The next worker finds what it has done.
                let _ = sent.outcome().await;
            }
            if let Err(error) = self.store.release(&held.lease).await {
                tracing::warn!(%shard, error = &error as &dyn std::error::Error, "cannot release the lease; it will expire");
            }
        }
    }

    /// Passes a first part of `batch` to the handler and commits it, unless the handler keeps it for now. Returns the rest.
    async fn fold(
        &mut self,
        mut batch: Batch,
        keeps_nothing: bool,
        shutdown: &CancellationToken,
    ) -> Result<Option<Batch>, EngineError> {
        // If the shard was revoked after the batch was sent, the batch belongs to another worker.
        let Some(held) = self.held.get_mut(&batch.shard) else { return Ok(None) };
        if !held.attempts.wait().is_zero() {
            return Ok(self.rest(batch, shutdown).await);
        }
        if held.attempts.parks().is_some() {
            self.settle(&batch.shard).await?;
        }
        let Some(held) = self.held.get(&batch.shard).filter(|held| !held.lease.is_lost()) else { return Ok(None) };
        let before = held.reached();
        // Within a shard positions only grow, so this comparison is enough for exactly once (R9).
        batch.events.pass(before.position);
        let began = Instant::now();
        let mut handled = if batch.events.is_empty() && held.kept.is_none() {
            Handled::default()
        } else {
            let course = Course {
                slice: batch.shard.slice(),
                parked: &held.parked,
                gives_up: held.attempts.parks(),
                refused: &held.refused,
                tried: held.attempts.tried(),
                room: self.handler.failures().map_or(0, |failures| failures.most_letters.saturating_sub(held.letters)),
                only: None,
            };
            let list = &batch.events[..batch.events.len().min(held.most)];
            let (shard, keeps_nothing) = (&batch.shard, keeps_nothing || batch.end.is_some());
            let (after, lease, is_ahead) = (before.position, &held.lease, held.sent.is_some());
            let changes = &|done| Changes { checkpoint: checkpoint_at(&batch, done, before), ..Changes::default() };
            let events = Events {
                list,
                batch: Some(&batch.events),
                shard,
                after,
                keeps_nothing,
                is_ahead,
                course,
                lease,
                changes,
            };
            handle(self.handler, events, shutdown).await
        };
        let took = began.elapsed();
        if !handled.kept {
            self.settle(&batch.shard).await?;
        }
        let Some(held) = self.held.get_mut(&batch.shard).filter(|held| !held.lease.is_lost()) else { return Ok(None) };
        if handled.failure.is_some() {
            // What the handler kept is lost.
            held.kept = None;
        }
        let before = held.reached();
        let is_whole = handled.done == batch.events.len();
        let checkpoint = checkpoint_at(&batch, handled.done, before);
        let has_more = !keeps_nothing && (!is_whole || batch.end.is_none());
        if has_more && handled.may_be_sent() && checkpoint.position > held.lease.checkpoint.position {
            let events = batch.events.first_of(handled.done);
            batch.events.pass_first(handled.done);
            (held.kept, held.end) = (None, None);
            held.sent = Some(Sent::new(&self.store, &held.lease, handled.take_changes(checkpoint), events, took));
            return Ok((!is_whole).then_some(batch));
        }
        let parked: Vec<_> = handled.letters.iter().map(|letter| letter.key.clone()).collect();
        let written = if handled.kept || handled.is_committed {
            Ok(())
        } else if is_news(&checkpoint, &held.lease.checkpoint) {
            let changes = handled.take_changes(checkpoint.clone());
            self.store.commit(&held.lease, changes).await
        } else if handled.failure.is_some() {
            // An error counts only if the lease is still held: if the generation was replaced in the meantime, its documents are
            // being deleted, and events cannot be folded into them.
            self.store.confirm(&held.lease).await
        } else {
            Ok(())
        };
        match written {
            Ok(()) => {}
            Err(CommitError::Fenced(_)) => {
                // If the shard was revoked in the meantime, this is no error.
                held.lease.hold().lose();
                return Ok(None);
            }
            Err(CommitError::Taken(taken)) => return self.refused(batch, handled.done, taken).await,
            Err(error) => return Err(error.into()),
        }
        self.meter.processed(&batch.events[..handled.done], began.elapsed());
        if handled.kept {
            held.kept = Some(checkpoint);
        } else if is_news(&checkpoint, &held.lease.checkpoint) {
            self.feed.committed(&batch.shard, &checkpoint);
            (held.lease.checkpoint, held.kept) = (checkpoint, None);
            held.most = held.most.saturating_mul(2);
            held.refused.clear();
        }
        self.meter.parked(parked.len());
        held.letters += parked.len();
        held.parked.extend(parked);
        if let Some(failure) = handled.failure {
            self.failed(&batch.shard, batch.events.get(handled.done), failure).await?;
        }
        let Some(held) = self.held.get_mut(&batch.shard) else { return Ok(None) };
        held.end = batch.end.filter(|_| is_whole && held.kept.is_none());
        batch.events.pass_first(handled.done);
        Ok((!is_whole).then_some(batch))
    }

    /// Decides about `event`, which could not be handled. Otherwise it is tried again, or parked with the next attempt.
    ///
    /// # Errors
    /// `failure`, if the engine stops at the event.
    async fn failed(
        &mut self,
        shard: &Shard,
        event: Option<&RecordedEvent>,
        failure: EngineError,
    ) -> Result<(), EngineError> {
        let (Some(held), Some(event)) = (self.held.get_mut(shard), event) else { return Err(failure) };
        self.meter.failed(event);
        // Nothing but the pause is left to do here about a reaction that fails for now: the shard is kept.
        let is_decided_here = !failure.is_transient()
            || matches!(failure, EngineError::Reaction { .. } | EngineError::NotForwarded { .. });
        let Some(settings) = self.handler.failures().filter(|_| is_decided_here) else { return Err(failure) };
        let (name, cause) = (&self.reader.name, cause_of(&failure));
        match settings.decide(&mut held.attempts, event.position, &failure) {
            Decision::Retry(pause) => {
                if failure.is_transient() {
                    telemetry::reader_failed(name, true);
                }
                tracing::warn!(name, position = %event.position, cause, ?pause, "trying the event again after a pause");
            }
            Decision::Park => tracing::error!(name, position = %event.position, cause, "parking the event"),
            Decision::Stop => {
                if let Err(error) = self.store.stopped(&held.lease, event, &cause).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(name, error, "cannot record the event at which the reader has stopped");
                }
                return Err(failure);
            }
        }
        self.handler.failed(&failure);
        Ok(())
    }
}

/// Passes `events` to `handler`, and lets it stop when their lease is lost.
async fn handle(handler: &dyn Handler, events: Events<'_>, shutdown: &CancellationToken) -> Handled {
    let stop = shutdown.child_token();
    let mut handling = handler.handle(&events.lease.reader, events, &stop);
    tokio::select! {
        biased;
        () = events.lease.lost() => {
            stop.cancel();
            handling.await
        }
        outcome = &mut handling => outcome,
    }
}

/// Whether `checkpoint` is to be committed after the `last` one. Where a source begins is, also if that is before all positions.
fn is_news(checkpoint: &Checkpoint, last: &Checkpoint) -> bool {
    checkpoint.position > last.position || (checkpoint.cursor.is_some() && last.cursor.is_none())
}

/// The checkpoint after the first `done` events of `batch`. Within the batch its cursor is the one before it: events that the source
/// delivers again from there are recognised by their positions.
fn checkpoint_at(batch: &Batch, done: usize, before: &Checkpoint) -> Checkpoint {
    if done == batch.events.len() {
        return batch.checkpoint.clone();
    }
    let Some(last) = done.checked_sub(1).map(|last| &batch.events[last]) else { return before.clone() };
    Checkpoint { position: last.position, witness: Some(Witness::of(last)), cursor: before.cursor.clone() }
}

/// The pauses of an engine between attempts.
pub(crate) const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));

/// Makes attempts, as an engine, until one succeeds or fails permanently, or the shutdown comes (`None`). It pauses between
/// attempts; after an attempt that lasted for a while the pauses start small again.
pub(crate) async fn persist<'a, T>(
    name: &'static str,
    report: &StateReport,
    shutdown: &CancellationToken,
    attempt: impl Fn() -> Pending<'a, Option<T>>,
) -> Result<Option<T>, EngineError> {
    let mut failures = Failures::default();
    while !shutdown.is_cancelled() {
        let started = Instant::now();
        match of_engine(attempt()).await {
            Err(error) if error.is_transient() && shutdown.is_cancelled() => break,
            // An act of an operator is no failure.
            Err(error @ EngineError::Paused(_)) => return Err(error),
            Err(error) if error.is_transient() => {
                tracing::warn!(name, error = &error as &dyn std::error::Error, "trying again after a pause");
                report.failed(&error);
                telemetry::reader_failed(name, true);
            }
            Err(error) => {
                report.failed(&error);
                telemetry::reader_failed(name, false);
                return Err(error);
            }
            ended => return ended,
        }
        let pause = BACKOFF.pause(failures.add(started.elapsed()));
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    Ok(None)
}
