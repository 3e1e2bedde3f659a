//! Reactions: events in, commands out (choreography).

mod lanes;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::StreamExt;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    error::BoxError,
    event::{EventSet, Metadata, Recorded, RecordedEvent},
    read::{
        definition,
        engine_error::{EngineError, Location},
        failure::{FailurePolicy, FailureSettings, cause_of},
        foreign::{self, Foreign, UnknownTypes},
        inbox::Open,
        panics::{Panicked, caught, caught_async},
        projection::EventOrder,
        read_model::{Leases, NewLetter, Reader, Shard},
        source::{EventSource, FailedEvent, Forwarded, Split, Subscription},
        standby::Standby,
        worker::{Course, DEFAULT_LEASE, Events, HANDLE_FOR, Handled, Handler, Worker},
        worker_state::{StateReport, WorkerState},
    },
    stream::Position,
    telemetry::{self, spans},
    write::{
        append::{IdempotencyKey, InvalidKey},
        decide::DecideError,
        execute::{CommandContext, ExecuteError},
    },
};

/// Reacts to events with commands.
///
/// Write `#[async_trait]` above the `impl`. It is in the prelude of `evenfold`, and comes from the crate `async-trait`. Without
/// it the compiler reports lifetimes that do not match.
///
/// ```
/// use async_trait::async_trait;
/// use es_core::{Policy, PolicyError, Recorded, Repository, reaction};
/// # use es_core::testing::account::{Account, AccountCommand, AccountEvent};
///
/// /// Puts the same amount on the account `copy`.
/// struct Copying {
///     accounts: Repository<Account>,
/// }
///
/// #[async_trait]
/// impl Policy for Copying {
///     const NAME: &'static str = "copying";
///     type Event = AccountEvent;
///
///     async fn react(&self, event: &Recorded<AccountEvent>) -> Result<(), PolicyError> {
///         let AccountEvent::Deposited { amount } = event.data else { return Ok(()) };
///         if event.stream.id() == "copy" {
///             return Ok(()); // its own effect
///         }
///         let context = reaction(event, Self::NAME, "copy")?;
///         self.accounts.execute_with("copy", AccountCommand::Deposit(amount), context).await?;
///         Ok(())
///     }
/// }
/// # let builder = es_core::Service::builder("accounts", es_core::MemoryStore::new());
///
/// // It gets its repositories from the service:
/// let builder = builder.aggregate::<Account>().policy(|shared| Copying { accounts: shared.repository() });
/// ```
///
/// If a command is refused and the policy returns that error with `?`, the error is permanent and stops the policy at the event.
/// If a refusal is an expected answer, match [`ExecuteError::Rejected`] and return `Ok(())`.
///
/// An id that cannot name a stream, such as an empty text from a field of the event, is a permanent error too, and a policy
/// cannot skip an event. So check what clients send before it gets into an event, for example with
/// [`StreamId::new`](crate::StreamId::new).
///
/// # Delivery
/// Events come in log order ([in several shards](PolicyRunner::shards), those of each stream do). A crash between a reaction and its checkpoint repeats the reaction, so its commands must carry an
/// idempotency key: [`reaction`] makes one from the event. The checkpoint is committed with each batch, after a second of
/// reactions, and when the policy stops, by a shutdown or at an event to which it cannot react. None of these repeats a
/// reaction.
#[async_trait]
pub trait Policy: Sized + Send + Sync + 'static {
    /// Its stable name, by the rule of [`Projection::NAME`](crate::Projection::NAME), whose name space it
    /// shares.
    const NAME: &'static str;

    /// The events that it reacts to.
    type Event: EventSet;

    /// A name by which another policy under the same [`NAME`](Self::NAME) is recognised and refused: the type's name.
    /// After the type was renamed, return the former name here.
    fn identity() -> &'static str {
        definition::type_name::<Self>()
    }

    /// In which lane `event` is, of a policy that reacts to several events [at the same time](PolicyRunner::concurrency): those of one
    /// lane it reacts to one after the other. By default a lane is a stream.
    fn lane(event: &Recorded<Self::Event>) -> String {
        event.stream.as_str().to_owned()
    }

    /// Does what follows from `event`.
    ///
    /// # Errors
    /// [`PolicyError`]: the policy stops at this event (R11), or tries again if that may help.
    async fn react(&self, event: &Recorded<Self::Event>) -> Result<(), PolicyError>;
}

/// The context of a command that reacts to `event`: caused by it, and idempotent under a key that
/// `policy` and `step` (which of its reactions to the event) make unique.
///
/// # Errors
/// [`InvalidKey`] when `policy` and `step` make no valid key.
pub fn reaction<D>(event: &Recorded<D>, policy: &str, step: &str) -> Result<CommandContext, InvalidKey> {
    let key = IdempotencyKey::new(format!("{policy}/{}/{step}", event.id))?;
    Ok(CommandContext::from(Metadata::caused_by(event)).idempotent(key, b""))
}

/// Why a policy did not react.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Trying again may help: here, or in a process of newer code, which has written what it would have to read.
    #[error("a reaction failed for now")]
    Transient(#[source] BoxError),
    /// Trying again does not help.
    #[error("a reaction failed")]
    Permanent(#[source] BoxError),
}

impl PolicyError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient(_))
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<ExecuteError<E>> for PolicyError {
    fn from(error: ExecuteError<E>) -> Self {
        let may_help = error.is_transient() || error.is_of_newer_code();
        if may_help { Self::Transient(error.into()) } else { Self::Permanent(error.into()) }
    }
}

impl<R: std::error::Error + Send + Sync + 'static> From<DecideError<R>> for PolicyError {
    fn from(error: DecideError<R>) -> Self {
        let may_help = error.is_transient() || error.is_of_newer_code();
        if may_help { Self::Transient(error.into()) } else { Self::Permanent(error.into()) }
    }
}

impl From<InvalidKey> for PolicyError {
    fn from(error: InvalidKey) -> Self {
        Self::Permanent(error.into())
    }
}

fn panicked(event: &RecordedEvent) -> EngineError {
    EngineError::Panicked { event: Location::of(event) }
}

/// Runs a policy and keeps its checkpoint.
///
/// # Panics
/// Its futures panic outside of a tokio runtime with time enabled.
#[derive(Debug)]
pub struct PolicyRunner<P> {
    pub(super) policy: P,
    source: Arc<dyn EventSource>,
    leases: Arc<dyn Leases>,
    lease: Duration,
    shards: u32,
    concurrency: usize,
    standby: Standby,
    failures: FailureSettings,
    /// What operators are told that it is.
    pub(super) kind: &'static str,
    /// Its events are messages of another system.
    pub(super) foreign: Option<Foreign>,
    pub(crate) report: StateReport,
}

impl<P: Policy> PolicyRunner<P> {
    /// Runs `policy` on the events of `source` and keeps its checkpoint in `leases`.
    pub fn new(policy: P, source: impl EventSource, leases: impl Leases) -> Self {
        const { assert!(definition::is_name(P::NAME), "Policy::NAME must be 1 to 64 bytes of a-z, 0-9 and '-'") }
        let (standby, report) = (Standby::default(), StateReport::default());
        let (source, leases, failures) = (Arc::new(source), Arc::new(leases), FailureSettings::default());
        let (kind, foreign) = ("policy", None);
        Self {
            policy,
            source,
            leases,
            lease: DEFAULT_LEASE,
            shards: 1,
            concurrency: 1,
            standby,
            failures,
            kind,
            foreign,
            report,
        }
    }

    /// How long the lease of a runner lasts after its process was killed or stalls, as
    /// [`Projector::lease`](crate::read::projector::Projector::lease).
    pub fn lease(self, ttl: Duration) -> Self {
        Self { lease: ttl, ..self }
    }

    /// In how many shards it follows the log (one by default), as
    /// [`Projector::shards`](crate::read::projector::Projector::shards). Each stream belongs to one of them by its id. It reacts to
    /// the events of each stream in their order; those of streams in different shards may overtake each other.
    pub fn shards(self, shards: u32) -> Self {
        Self { shards: shards.max(1), ..self }
    }

    /// To how many events it reacts at the same time (one by default), those of one [lane](Policy::lane) one after the other. Where it
    /// cannot react to an event, it may have reacted to later events of other lanes, and does so again when it continues: that changes
    /// nothing if its commands carry idempotency keys.
    pub fn concurrency(self, events: usize) -> Self {
        Self { concurrency: events.max(1), ..self }
    }

    /// How often it tries again while it [stands by](WorkerState::StandingBy) (every 5 s by default).
    pub fn standby(self, retry: Duration) -> Self {
        Self { standby: Standby { retry, ..self.standby }, ..self }
    }

    /// How long it [stands by](WorkerState::StandingBy) at one event that this program does not know (15 min by default;
    /// [`Duration::MAX`] means no limit). If the event was not passed by then, the next try ends with
    /// [`EngineError::NeverKnown`]. A process that is started again waits for the whole time again.
    pub fn standby_limit(self, limit: Duration) -> Self {
        Self { standby: Standby { limit, ..self.standby }, ..self }
    }

    /// What it does when it cannot react to an event ([stops](FailurePolicy::stop) by default). A parked key is a stream.
    pub fn on_failure(mut self, policy: FailurePolicy) -> Self {
        self.failures.policy = policy;
        self
    }

    /// How many dead letters it may have (1,000 by default). At one more it stops with [`EngineError::TooManyLetters`].
    pub fn most_letters(mut self, letters: usize) -> Self {
        self.failures.most_letters = letters;
        self
    }

    /// How long a reaction may take (any time by default). Then its future is dropped, and that is a failure
    /// ([`EngineError::TooSlow`]), for which the [`FailurePolicy`] decides. A command that was handed to the store before is
    /// finished.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.failures.time_limit = limit;
        self
    }

    /// What [`run`](Self::run) is doing; the receiver sees each change.
    pub fn state(&self) -> watch::Receiver<WorkerState> {
        self.report.watch()
    }

    /// Runs until `shutdown`. It retries when a store or the source fails. At an event that only newer code knows it
    /// [stands by](WorkerState::StandingBy), as
    /// [`Projector::run`](crate::read::projector::Projector::run) does.
    ///
    /// # Errors
    /// A permanent error stops the policy at the event that it concerns (R11). The checkpoint is before that event. With another
    /// [`FailurePolicy`] it may try the event again, or park its stream.
    ///
    /// # Cancel safety
    /// Dropping the future may repeat the reactions of the last second.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), EngineError> {
        self.standby.run(P::NAME, &self.report, &self.failures, &shutdown, || Box::pin(self.follow(&shutdown))).await
    }

    /// Reads `event`; `None` if it is none of those that the policy reacts to.
    fn read(&self, event: &RecordedEvent) -> Result<Option<Recorded<P::Event>>, EngineError> {
        let event = foreign::read(self.foreign, &*self.source, event)?;
        match caught(|| event.decode::<P::Event>()).map_err(|Panicked| panicked(&event))? {
            Err(error) if self.treats_unknown(UnknownTypes::Ignore) && error.reason.is_of_newer_code() => Ok(None),
            decoded => Ok(decoded?),
        }
    }

    /// Reacts to `event`, as it was `read`. `None` if there was no reaction because of the shutdown.
    async fn react(
        &self,
        event: &RecordedEvent,
        read: Result<Option<Recorded<P::Event>>, EngineError>,
        stop: &CancellationToken,
    ) -> Result<Option<()>, EngineError> {
        let Some(decoded) = read? else { return Ok(Some(())) };
        if stop.is_cancelled() {
            return Ok(None);
        }
        let limit = self.failures.time_limit;
        let reacted = tokio::time::timeout(limit, caught_async(self.policy.react(&decoded))).await;
        let too_slow = |_| EngineError::TooSlow { event: Location::of(event), took: limit, limit };
        let reacted = reacted.map_err(too_slow)?.map_err(|Panicked| panicked(event))?;
        reacted.map(Some).map_err(|reason| {
            let (event, transient) = (Location::of(event), reason.is_transient());
            EngineError::Reaction { event, transient, reason: reason.into() }
        })
    }

    fn treats_unknown(&self, unknown: UnknownTypes) -> bool {
        foreign::treats(self.foreign, unknown)
    }

    /// Whether `failure` parks the key at once: the first time, not when its letters are handled again.
    fn parks_at_once(&self, failure: &EngineError, is_again: bool) -> bool {
        self.treats_unknown(UnknownTypes::Park) && failure.awaits_newer_code() && !is_again
    }

    /// Whether the event at `position`, which has just failed, is handed to the source. A letter that is handled again stays where it is.
    fn forwards(&self, failure: &EngineError, course: &Course<'_>, position: Position) -> bool {
        let at_once = self.treats_unknown(UnknownTypes::Park);
        course.only.is_none() && self.failures.forwards(course.attempts(position) + 1, failure, at_once)
    }

    /// Hands `event` to the source, and returns when it cannot be lost any more.
    async fn forward(
        &self,
        shard: &Shard,
        event: &RecordedEvent,
        failure: EngineError,
        attempts: u32,
    ) -> Result<(), EngineError> {
        let (cause, class, is_lasting) = (cause_of(&failure), failure.class(), failure.is_lasting());
        let failed = FailedEvent { reader: P::NAME, shard, event, cause: &cause, class, attempts, is_lasting };
        let forwarded = self.source.forward(failed).await.map_err(|reason| EngineError::NotForwarded {
            event: Location::of(event),
            failure: Box::new(failure),
            reason,
        })?;
        let (to, place) = match &forwarded {
            Forwarded::Retry(place) => ("retry", place),
            Forwarded::DeadLetter(place) => ("dead-letter", place),
        };
        telemetry::forwarded(P::NAME, to, class);
        tracing::error!(name = P::NAME, %shard, position = %event.position, cause, attempts, place, "forwarded the event");
        Ok(())
    }

    /// `policy Fulfilment`. The events that it reacts to may change: it continues from its checkpoint.
    fn definition(&self) -> String {
        format!("{} {}", self.kind, P::identity())
    }

    /// Refuses to continue with the checkpoint of another definition of the same name.
    pub(crate) fn admit(&self, stored: &str) -> Result<(), EngineError> {
        let ours = self.definition();
        if stored == ours {
            return Ok(());
        }
        Err(EngineError::OtherDefinition { name: P::NAME, stored: stored.to_owned(), ours })
    }

    async fn follow(&self, shutdown: &CancellationToken) -> Result<Option<()>, EngineError> {
        if let Some(pause) = self.leases.paused(P::NAME).await? {
            return Err(EngineError::Paused(pause));
        }
        let reader = self.reader().await?;
        let (leases, categories) = (self.leases.clone(), P::Event::categories());
        let order = if self.foreign.is_some() { EventOrder::PerStream } else { EventOrder::PerKey };
        let (name, store) = (P::NAME.to_owned(), leases.id().await?);
        let split = Split { shards: self.shards, by_stream: true };
        let forwards = self.failures.policy.forwards();
        let subscription = Subscription { reader: name, store, categories, order, split, forwards };
        let worker = Worker::open(self, &*self.source, &subscription, leases, reader, self.lease).await?;
        self.standby.work(worker, P::NAME, &self.report, shutdown).await
    }

    /// What its checkpoint belongs to.
    async fn reader(&self) -> Result<Reader, EngineError> {
        let (reader, stored) = self.leases.ensure_reader(P::NAME, &self.definition()).await?;
        self.admit(&stored)?;
        Ok(reader)
    }
}

#[async_trait]
impl<P: Policy> Handler for PolicyRunner<P> {
    async fn handle(&self, reader: &Reader, events: Events<'_>, stop: &CancellationToken) -> Handled {
        let Events { list: events, course, shard, .. } = events;
        let (began, mut handled) = (Instant::now(), Handled::default());
        let mut inbox = match Open::of(self.foreign, &*self.source, &*self.leases, reader, events).await {
            Ok(inbox) => inbox,
            Err(error) => return Handled { failure: Some(error.into()), ..handled },
        };
        let mut lanes = self.lanes(events, &course, shard, began, stop);
        for event in events {
            let key = foreign::parked_as(self.foreign, shard, event.stream.as_str());
            let is_parked_now = course.gives_up == Some(event.position);
            // What follows of a stream that was just parked is not reacted to before that is known.
            let mut is_last = is_parked_now;
            let letter = if !course.parked.is_empty() && course.parked.contains(&*key) {
                Some((None, 0))
            } else if inbox.as_ref().is_some_and(|inbox| inbox.knows(event)) {
                tracing::debug!(name = P::NAME, %event.stream, %event.position, "its producer repeats a message");
                None
            } else {
                self.report.handles(Some(event.position));
                let reacted = match &mut lanes {
                    Some(lanes) => lanes.next().await.unwrap_or(Ok(None)),
                    None => self.react(event, self.read(event), stop).instrument(spans::react(P::NAME, event)).await,
                };
                match reacted {
                    Ok(Some(())) => {
                        if let Some(inbox) = &mut inbox {
                            inbox.add(event);
                        }
                        None
                    }
                    Ok(None) => break,
                    Err(error) if error.is_of_event() && is_parked_now => {
                        Some((Some(cause_of(&error)), course.attempts(event.position)))
                    }
                    Err(error) if self.forwards(&error, &course, event.position) => {
                        // Without its lease: another worker may have handled it meanwhile.
                        if stop.is_cancelled() {
                            break;
                        }
                        let attempts = course.attempts(event.position) + 1;
                        if let Err(error) = self.forward(shard, event, error, attempts).await {
                            handled.failure = Some(error);
                            break;
                        }
                        // The checkpoint passes it at once: until then a crash would forward it again.
                        is_last = true;
                        None
                    }
                    Err(error) if self.parks_at_once(&error, course.only.is_some()) => {
                        is_last = true;
                        Some((Some(cause_of(&error)), 1))
                    }
                    Err(error) => {
                        handled.failure = Some(error);
                        break;
                    }
                }
            };
            if let Some((cause, attempts)) = letter {
                if handled.letters.len() == course.room {
                    let (event, limit) = (Location::of(event), self.failures.most_letters);
                    handled.failure = Some(EngineError::TooManyLetters { event, limit });
                    break;
                }
                handled.letters.push(NewLetter { key: key.into_owned(), event: event.clone(), cause, attempts });
            }
            handled.done += 1;
            // In lanes, what has begun is waited for.
            if is_last || (lanes.is_none() && began.elapsed() >= HANDLE_FOR) {
                break;
            }
        }
        self.report.handles(None);
        handled.inbox = inbox.and_then(Open::into_changes);
        handled
    }

    fn failures(&self) -> Option<&FailureSettings> {
        Some(&self.failures)
    }

    fn failed(&self, failure: &EngineError) {
        self.report.failed(failure);
    }
}
