//! The engine that keeps a read model: events in, documents and checkpoint out, in one commit.

mod documents;
mod part;

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    codec,
    event::{Categories, EventSet, Recorded},
    limits::MAX_KEY_BYTES,
    read::{
        candidate::Candidate,
        definition,
        engine_error::{EngineError, Location},
        projection::{EventOrder, Projection},
        read_model::{Generation, ReadModelStore},
        source::{EventSource, Subscription},
        standby::Standby,
        worker::{DEFAULT_LEASE, Step, Worker},
        worker_state::{StateReport, WorkerState},
    },
};

/// Keeps the read model of one projection up to date.
///
/// Any number of workers of the same projection may run, in any number of processes: leases and
/// fencing tokens see to it that each shard is folded by one of them, and another takes over when
/// it stops.
///
/// # Delivery
/// Documents and checkpoint commit together (R9): crashes, repeated deliveries, rebalances and
/// workers that were thought dead leave the read model equal to the fold of the log.
///
/// # Panics
/// Its futures panic outside of a tokio runtime with time enabled.
#[derive(Debug)]
pub struct Projector<P> {
    pub(crate) projection: P,
    pub(crate) source: Arc<dyn EventSource>,
    pub(crate) store: Arc<dyn ReadModelStore>,
    pub(crate) lease: Duration,
    document_bytes: usize,
    standby: Standby,
    pub(crate) report: StateReport,
}

impl<P: Projection> Projector<P> {
    /// How many bytes of documents are loaded for one commit, and about how many are written by it, unless set
    /// otherwise.
    pub const DEFAULT_DOCUMENT_BYTES: usize = 32 * 1024 * 1024;

    /// The most bytes of documents that one commit writes, whatever is set: Postgres takes no message of 1 GiB, and
    /// `SQLite` no value of 1 GB.
    pub const MAX_DOCUMENT_BYTES: usize = 512 * 1024 * 1024;

    /// An event may touch documents of so many times the bytes that are set.
    const ONE_EVENT: usize = 8;

    /// Folds the events of `source` through `projection` into `store`.
    pub fn new(projection: P, source: impl EventSource, store: impl ReadModelStore) -> Self {
        const { assert!(definition::is_name(P::NAME), "Projection::NAME must be 1 to 64 bytes of a-z, 0-9 and '-'") }
        let (standby, report) = (Standby::default(), StateReport::default());
        Self {
            projection,
            source: Arc::new(source),
            store: Arc::new(store),
            lease: DEFAULT_LEASE,
            document_bytes: Self::DEFAULT_DOCUMENT_BYTES,
            standby,
            report,
        }
    }

    /// How long a worker that fell silent keeps its shards from others (2 s, unless set
    /// otherwise). A worker that stops in order gives them back at once; those of a process that is gone are free at
    /// once on a file (`es-sqlite`).
    ///
    /// The lease is renewed while events are folded: on a runtime with several threads however long one
    /// call of [`Projection::fold`] takes, on one with a single thread as long as none takes half of `ttl`.
    /// A worker that stalls for longer may lose a shard to one that waits. It folds nothing wrong then, since its
    /// commit is refused, but what it was folding is folded again.
    pub fn lease(self, ttl: Duration) -> Self {
        Self { lease: ttl, ..self }
    }

    /// Of how many bytes the documents may be that are loaded for one commit (32 MiB, unless set otherwise); in
    /// memory they take a few times as much (R17). A batch that touches more is committed in parts.
    ///
    /// A single event cannot be split. It may touch documents of eight times as many bytes, before and after it, but
    /// never of more than [`MAX_DOCUMENT_BYTES`](Self::MAX_DOCUMENT_BYTES); one that touches more stops the projector
    /// with [`EngineError::TooLarge`].
    pub fn document_bytes(self, bytes: usize) -> Self {
        Self { document_bytes: bytes.clamp(1, Self::MAX_DOCUMENT_BYTES), ..self }
    }

    fn most_document_bytes(&self) -> usize {
        self.document_bytes.saturating_mul(Self::ONE_EVENT).min(Self::MAX_DOCUMENT_BYTES)
    }

    /// How often it tries again while it [stands by](WorkerState::StandingBy) (5 s, unless set
    /// otherwise).
    pub fn standby(self, retry: Duration) -> Self {
        Self { standby: Standby { retry, ..self.standby }, ..self }
    }

    /// How long it [stands by](WorkerState::StandingBy) at one event that this program does not know (15 min, unless set
    /// otherwise; [`Duration::MAX`] is for ever). An event that is still there at the first try after that ends it with
    /// [`EngineError::NeverKnown`]. A process that is started again waits anew.
    pub fn standby_limit(self, limit: Duration) -> Self {
        Self { standby: Standby { limit, ..self.standby }, ..self }
    }

    pub(crate) fn report(&self) -> &StateReport {
        &self.report
    }

    /// What [`run`](Self::run) is doing, now and later.
    pub fn state(&self) -> watch::Receiver<WorkerState> {
        self.report.watch()
    }

    /// Runs until `shutdown`; failures of the store and of the source are waited out.
    ///
    /// A read model that does not serve yet is built first and serves when it has reached the end of
    /// the source. Where an older [`Projection::VERSION`] serves, the new one is built beside it and
    /// takes its place.
    ///
    /// Where only newer code can go on, because a newer version serves or an event has a name or schema
    /// version that this program does not know, it [stands by](WorkerState::StandingBy): it gives its leases back
    /// and tries again every 5 s, so that a rolling deploy stops no process, and none is stopped when
    /// the deploy is rolled back. The checkpoint never passes such an event (R11). No program may ever know it, so the
    /// projector stops with [`EngineError::NeverKnown`] when it has stood by at one event for
    /// [`standby_limit`](Self::standby_limit).
    ///
    /// # Errors
    /// A permanent error stops the projector at the event that it concerns (R11): the events before it
    /// are folded and committed, it and those after it are not.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the read model as of the last commit; its leases expire.
    /// Prefer `shutdown`, which gives them back.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), EngineError> {
        self.standby.run(P::NAME, &self.report, &shutdown, || Box::pin(self.serve(&shutdown))).await
    }

    async fn serve(&self, shutdown: &CancellationToken) -> Result<Option<()>, EngineError> {
        let candidate = &Candidate::find::<P>(&*self.store).await?;
        let worker = self.worker(&*self.source, &candidate.generation).await?;
        let opened = Instant::now();
        let steps = worker.run(shutdown, |step| {
            Box::pin(async move {
                candidate.after(step).await?;
                // Not before: what newer code must read may be the next event.
                if matches!(step, Step::AtEnd(_)) || opened.elapsed() > self.standby.retry {
                    self.report.set(P::NAME, WorkerState::Working);
                }
                Ok(ControlFlow::Continue(()))
            })
        });
        steps.await
    }

    pub(crate) async fn worker(
        &self,
        source: &dyn EventSource,
        generation: &Generation,
    ) -> Result<Worker<'_>, EngineError> {
        if P::ORDER == EventOrder::PerStream
            && !matches!(P::Event::categories(), Categories::Only(names) if names.len() == 1)
        {
            return Err(EngineError::NotPerStream);
        }
        let subscription = Subscription {
            // Each generation is a reader of its own, so that a rebuild takes no shard from the
            // workers that serve.
            reader: format!("{}-g{}", P::NAME, generation.id),
            store: self.store.id().await?,
            categories: P::Event::categories(),
            order: P::ORDER,
        };
        Worker::open(self, source, &subscription, self.store.clone(), generation.clone(), self.lease).await
    }
}

/// The keys of the documents that `event` touches, checked, each of them once: a document that is named
/// twice must not see the event twice (R9).
pub(crate) fn keys<P: Projection>(projection: &P, event: &Recorded<P::Event>) -> Result<Vec<String>, EngineError> {
    let mut keys = projection.keys(event).into_vec();
    keys.sort_unstable();
    keys.dedup();
    for key in &keys {
        let well_formed = !key.is_empty() && key.len() <= MAX_KEY_BYTES && !key.chars().any(char::is_control);
        let allowed = P::ORDER == EventOrder::PerKey || key == event.stream.id();
        if !well_formed || !allowed {
            return Err(EngineError::Key { key: key.clone(), event: Location::of(event) });
        }
    }
    Ok(keys)
}

/// Folds `event` into the document under `key`.
pub(crate) fn fold<P: Projection>(
    projection: &P,
    key: &str,
    document: &mut Option<P::Document>,
    event: &Recorded<P::Event>,
) -> Result<(), EngineError> {
    projection.fold_keyed(key, document, event).map_err(|reason| EngineError::Unfoldable {
        key: key.to_owned(),
        event: Location::of(event),
        reason,
    })
}

/// What is stored of the document under `key`.
pub(crate) fn encode<P: Projection>(key: &str, document: &P::Document) -> Result<Bytes, EngineError> {
    codec::encode(P::NAME, document).map_err(|reason| EngineError::Unwritable {
        projection: P::NAME,
        key: key.to_owned(),
        reason,
    })
}
