//! The engine of a table projection.

use std::{marker::PhantomData, ops::ControlFlow, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{CreateTablesError, TableProjection, TableStore, subject};
use crate::{
    event::{EventSet, RecordedEvent},
    read::{
        candidate::{Candidate, Subject},
        definition,
        engine_error::EngineError,
        failure::{FailurePolicy, FailureSettings},
        foreign::{Foreign, UnknownTypes},
        projection::EventOrder,
        read_model::{Generation, Reader},
        rebuild::{self, RebuildPlan, Throttle},
        source::{EventSource, SourceError, Split, Subscription},
        standby::{Standby, waits_while_paused},
        worker::{self, DEFAULT_LEASE, Step, Worker},
        worker_state::{StateReport, WorkerState},
    },
    write::store::EventStore,
};

/// Keeps the tables of one projection up to date, as a [`Projector`](crate::Projector) does for documents.
///
/// # Delivery
/// What the projection writes and the checkpoint commit together (R9).
///
/// # Panics
/// Its futures panic outside of a tokio runtime with time enabled.
#[derive(Debug)]
pub struct TableProjector<P, S> {
    pub(super) projection: P,
    pub(crate) source: Arc<dyn EventSource>,
    pub(super) store: Arc<S>,
    lease: Duration,
    standby: Standby,
    throttle: Option<Throttle>,
    pub(super) failures: FailureSettings,
    /// Its events are messages of another system.
    pub(super) foreign: Option<Foreign>,
    pub(crate) report: StateReport,
    database: PhantomData<fn() -> S>,
}

impl<S: TableStore, P: TableProjection<S>> TableProjector<P, S> {
    /// Writes the events of `source` through `projection` into its tables in `store`.
    pub fn new(projection: P, source: impl EventSource, store: S) -> Self {
        const { assert!(definition::is_name(P::NAME), "TableProjection::NAME must be 1 to 64 bytes of a-z, 0-9 and '-'") }
        let (standby, report) = (Standby::default(), StateReport::default());
        Self {
            projection,
            source: Arc::new(source),
            store: Arc::new(store),
            lease: DEFAULT_LEASE,
            standby,
            throttle: None,
            failures: FailureSettings::default(),
            foreign: None,
            report,
            database: PhantomData,
        }
    }

    /// Writes the messages of `topic`, which another system fills, through `projection` into its tables in `store`: a
    /// [`Consumer`](crate::Consumer) that writes SQL.
    ///
    /// Messages of one partition come in order, and partitions are shared by the processes that run it. So `write` may be called for
    /// several partitions at the same time, in transactions of their own. A message that its producer repeats is written once
    /// ([`inbox`](Self::inbox)).
    ///
    /// A parked key is that of [`TableProjection::key`] in one shard of the topic, and of a message that cannot be read its stream.
    ///
    /// A new version is filled from where the topic is declared to start, and serves as soon as it has handled of each partition what
    /// the one that serves has; the first one serves at once. Its positions are not those of the log,
    /// so nothing can wait for them.
    pub fn of_topic(projection: P, topic: impl EventSource, store: S) -> Self {
        Self { foreign: Some(Foreign::default()), ..Self::new(projection, topic, store) }
    }

    /// What a projector of a topic does with messages of types that it does not know ([stops](UnknownTypes::Stop) by default), as
    /// [`ConsumerRunner::unknown_types`](crate::ConsumerRunner::unknown_types). One of the log always stands by for newer code.
    pub fn unknown_types(self, unknown: UnknownTypes) -> Self {
        Self { foreign: self.foreign.map(|foreign| Foreign { unknown, ..foreign }), ..self }
    }

    /// For how long a projector of a topic knows the messages that it has handled (7 days by default), as
    /// [`ConsumerRunner::inbox`](crate::ConsumerRunner::inbox). Events of the log are never repeated.
    pub fn inbox(self, keep_for: Duration) -> Self {
        Self { foreign: self.foreign.map(|foreign| Foreign { keep_for, ..foreign }), ..self }
    }

    /// What its generations are known by.
    pub(crate) fn subject(&self) -> Subject {
        subject::<S, P>(self.foreign.is_some())
    }

    /// As [`Projector::lease`](crate::Projector::lease).
    pub fn lease(self, ttl: Duration) -> Self {
        Self { lease: ttl, ..self }
    }

    /// As [`Projector::standby`](crate::Projector::standby).
    pub fn standby(self, retry: Duration) -> Self {
        Self { standby: Standby { retry, ..self.standby }, ..self }
    }

    /// As [`Projector::standby_limit`](crate::Projector::standby_limit).
    pub fn standby_limit(self, limit: Duration) -> Self {
        Self { standby: Standby { limit, ..self.standby }, ..self }
    }

    /// As [`Projector::throttle`](crate::Projector::throttle).
    pub fn throttle(self, throttle: Throttle) -> Self {
        Self { throttle: Some(throttle), ..self }
    }

    /// What it does when it cannot write an event ([stops](FailurePolicy::stop) by default).
    pub fn on_failure(mut self, policy: FailurePolicy) -> Self {
        self.failures.policy = policy;
        self
    }

    /// As [`Projector::most_letters`](crate::Projector::most_letters).
    pub fn most_letters(mut self, letters: usize) -> Self {
        self.failures.most_letters = letters;
        self
    }

    /// How long one call of [`TableProjection::write`] may take (any time by default, within the limits of the store). A longer one
    /// is interrupted and rolled back, and counts as a failure of the batch. It should be several times what a batch takes.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.failures.time_limit = limit;
        self
    }

    /// What [`run`](Self::run) is doing; the receiver sees each change.
    pub fn state(&self) -> watch::Receiver<WorkerState> {
        self.report.watch()
    }

    /// Runs until `shutdown`, as [`Projector::run`](crate::Projector::run).
    ///
    /// # Errors
    /// A permanent error stops it at the event that it concerns (R11), unless the [`FailurePolicy`] says otherwise.
    /// [`EngineError::Tables`] when its tables cannot be made: then nothing was changed, and what serves goes on.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the tables as of the last commit, and its leases expire. Prefer `shutdown`, which releases them.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), EngineError> {
        let serve = || Box::pin(self.serve(&shutdown)) as worker::Pending<'_, Option<()>>;
        self.standby.run(P::NAME, &self.report, &self.failures, &shutdown, serve).await
    }

    async fn serve(&self, shutdown: &CancellationToken) -> Result<Option<()>, EngineError> {
        if let Some(pause) = self.store.paused(P::NAME).await? {
            return Err(EngineError::Paused(pause));
        }
        let candidate = &Candidate::find(&*self.store, &self.subject()).await?;
        let opened = Instant::now();
        let report = |step| {
            if self.standby.is_over(step, opened.elapsed()) {
                self.report.set(P::NAME, WorkerState::Working);
            }
        };
        if !candidate.serves() && self.foreign.is_none() {
            let source = rebuild::throttled(self.throttle.as_ref(), &self.source);
            if self.build(&*source, candidate, shutdown, report).await?.is_none() {
                return Ok(None);
            }
        }
        let worker = self.worker(&*self.source, &candidate.generation).await?;
        let steps = worker.run(shutdown, |step| {
            Box::pin(async move {
                candidate.after(step).await?;
                report(step);
                Ok(ControlFlow::Continue(()))
            })
        });
        steps.await
    }

    /// Builds a new generation of the tables from the first event of the source, as
    /// [`Projector::rebuild`](crate::Projector::rebuild).
    ///
    /// # Errors
    /// As [`run`](Self::run), and [`EngineError::Discarded`] when a rebuild of another version was begun later than this one.
    ///
    /// # Cancel safety
    /// Dropping the future interrupts the rebuild, as `shutdown` does.
    pub async fn rebuild(&self, shutdown: CancellationToken) -> Result<Option<Generation>, EngineError> {
        self.rebuild_from(&*rebuild::throttled(self.throttle.as_ref(), &self.source), shutdown).await
    }

    /// What a rebuild from `log` has to do, as [`Projector::plan_rebuild`](crate::Projector::plan_rebuild). Its time is that of
    /// reading and decoding: how long the tables take to be written is not known before.
    ///
    /// # Errors
    /// As [`Projector::plan_rebuild`](crate::Projector::plan_rebuild).
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn plan_rebuild(&self, log: &dyn EventStore) -> Result<RebuildPlan, EngineError> {
        rebuild::plan(&*self.store, P::NAME, P::VERSION, log, Decodes::<P::Event>(PhantomData)).await
    }

    pub(crate) async fn rebuild_from(
        &self,
        source: &dyn EventSource,
        shutdown: CancellationToken,
    ) -> Result<Option<Generation>, EngineError> {
        let begun = worker::persist(P::NAME, &self.report, &shutdown, || {
            Box::pin(async { Candidate::begin(&*self.store, &self.subject()).await.map(Some) })
        });
        let Some(candidate) = begun.await? else { return Ok(None) };
        waits_while_paused(P::NAME, &shutdown, || {
            Box::pin(worker::persist(P::NAME, &self.report, &shutdown, || {
                Box::pin(async {
                    let built = self.build(source, &candidate.again(), &shutdown, |_| {}).await;
                    built.map_err(|error| match error {
                        EngineError::Replaced => EngineError::Discarded,
                        other => other,
                    })
                })
            }))
        })
        .await
    }

    async fn build(
        &self,
        source: &dyn EventSource,
        candidate: &Candidate<'_>,
        shutdown: &CancellationToken,
        after_step: impl Fn(Step) + Send + Sync,
    ) -> Result<Option<Generation>, EngineError> {
        let (worker, after_step) = (self.worker(source, &candidate.generation).await?, &after_step);
        let steps = worker.run(shutdown, |step| {
            Box::pin(async move {
                after_step(step);
                let serves = candidate.after(step).await?;
                Ok(if serves { ControlFlow::Break(candidate.generation.clone()) } else { ControlFlow::Continue(()) })
            })
        });
        steps.await
    }

    /// Whether it can run as it is set up.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        if self.failures.policy.forwards() { Err(SourceError::CannotForward.into()) } else { Ok(()) }
    }

    /// A worker for `generation`, whose tables are there.
    async fn worker(&self, source: &dyn EventSource, generation: &Generation) -> Result<Worker<'_>, EngineError> {
        self.check()?;
        self.store.create_tables(generation, P::MIGRATIONS).await.map_err(|error| match error {
            CreateTablesError::Store(error) => error.into(),
            CreateTablesError::Gone => EngineError::Replaced,
            error => EngineError::Tables(error),
        })?;
        let subscription = Subscription {
            reader: format!("{}-g{}", P::NAME, generation.reader.id),
            store: self.store.id().await?,
            categories: P::Event::categories(),
            order: if self.foreign.is_some() { EventOrder::PerStream } else { EventOrder::PerKey },
            split: Split::NONE,
            forwards: false,
        };
        Worker::open(self, source, &subscription, self.store.clone(), generation.reader.clone(), self.lease).await
    }
}

/// How long tables take to be written is not known before: events are only decoded.
struct Decodes<E>(PhantomData<fn() -> E>);

#[async_trait]
impl<E: EventSet> rebuild::Trial for Decodes<E> {
    async fn prepare(&mut self, _: Option<&Reader>, _: &[RecordedEvent]) -> Result<(), EngineError> {
        Ok(())
    }

    fn fold(&mut self, events: &[RecordedEvent]) {
        for event in events {
            drop(event.decode::<E>());
        }
    }
}
