//! The engine that keeps a read model: events in, documents and checkpoint out, in one commit.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    candidate::Candidate,
    codec, definition,
    error::{EngineError, Location},
    event::{Categories, EventSet, Recorded, RecordedEvent},
    projection::{MAX_KEY_BYTES, Order, Projection},
    read_model::{Changes, Generation, ReadModelStore},
    source::{EventSource, Subscription},
    standby,
    worker::{Handler, Step, Worker},
    worker_state::{STANDBY_RETRY, StateReport, WorkerState},
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
#[derive(Debug)]
pub struct Projector<P> {
    pub(crate) projection: P,
    pub(crate) source: Arc<dyn EventSource>,
    pub(crate) store: Arc<dyn ReadModelStore>,
    pub(crate) lease: Duration,
    standby: Duration,
    report: StateReport,
}

impl<P: Projection> Projector<P> {
    /// Folds the events of `source` through `projection` into `store`.
    pub fn new(projection: P, source: Arc<dyn EventSource>, store: Arc<dyn ReadModelStore>) -> Self {
        const { assert!(definition::is_name(P::NAME), "Projection::NAME must be 1 to 64 bytes of a-z, 0-9 and '-'") }
        let (standby, report) = (STANDBY_RETRY, StateReport::default());
        Self { projection, source, store, lease: Duration::from_secs(10), standby, report }
    }

    /// How long a worker that fell silent keeps its shards from others (10 s, unless set
    /// otherwise). A worker that stops in order gives them back at once.
    pub fn lease(self, ttl: Duration) -> Self {
        Self { lease: ttl, ..self }
    }

    /// How often it tries again while it [stands by](WorkerState::StandingBy) (5 s, unless set
    /// otherwise).
    pub fn standby(self, retry: Duration) -> Self {
        Self { standby: retry, ..self }
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
    /// the deploy is rolled back. The checkpoint never passes such an event (R11).
    ///
    /// # Errors
    /// What waiting cannot mend stops the projector at the event that it concerns (R11); of the batch
    /// that holds it nothing is folded.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the read model as of the last commit; its leases expire.
    /// Prefer `shutdown`, which gives them back.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), EngineError> {
        standby::run(P::NAME, &self.report, self.standby, &shutdown, || Box::pin(self.serve(&shutdown))).await
    }

    async fn serve(&self, shutdown: &CancellationToken) -> Result<Option<()>, EngineError> {
        let candidate = &Candidate::find::<P>(&*self.store).await?;
        let worker = self.worker(&candidate.generation).await?;
        let opened = Instant::now();
        let steps = worker.run(shutdown, |step| {
            Box::pin(async move {
                candidate.after(step).await?;
                // Not before: what newer code must read may be the next event.
                if step == Step::AtEnd || opened.elapsed() > self.standby {
                    self.report.set(P::NAME, WorkerState::Working);
                }
                Ok(ControlFlow::Continue(()))
            })
        });
        steps.await
    }

    pub(crate) async fn worker(&self, generation: &Generation) -> Result<Worker<'_>, EngineError> {
        if P::ORDER == Order::PerStream
            && !matches!(P::Event::categories(), Categories::Only(names) if names.len() == 1)
        {
            return Err(EngineError::NotPerStream);
        }
        let subscription = Subscription {
            // Each generation is a reader of its own, so that a rebuild takes no shard from the
            // workers that serve.
            reader: format!("{}-g{}", P::NAME, generation.id),
            categories: P::Event::categories(),
            order: P::ORDER,
        };
        Worker::open(self, &*self.source, &subscription, self.store.clone(), generation.clone(), self.lease).await
    }
}

#[async_trait]
impl<P: Projection> Handler for Projector<P> {
    async fn handle(
        &self,
        generation: &Generation,
        events: Vec<RecordedEvent>,
        _: &CancellationToken,
    ) -> Result<Changes, EngineError> {
        let mut touching = Vec::with_capacity(events.len());
        for event in &events {
            if let Some(event) = event.decode::<P::Event>()? {
                touching.push((keys(&self.projection, &event)?, event));
            }
        }
        let wanted: BTreeSet<&String> = touching.iter().flat_map(|(keys, _)| keys).collect();
        let wanted: Vec<String> = wanted.into_iter().cloned().collect();
        let stored = if wanted.is_empty() { Vec::new() } else { self.store.load(generation, &wanted).await? };
        let mut documents = BTreeMap::new();
        for (key, stored) in wanted.into_iter().zip(stored) {
            let document = stored.map(|bytes| codec::decode(&bytes)).transpose();
            let document = document.map_err(|reason| EngineError::Document { key: key.clone(), reason })?;
            documents.insert(key, document);
        }
        for (keys, event) in &touching {
            fold(&self.projection, keys, event, &mut documents)?;
        }
        let mut changes = Changes::default();
        for (key, document) in documents {
            match document {
                Some(document) => {
                    let bytes = encode::<P>(&key, &document)?;
                    changes.upserts.push((key, bytes));
                }
                None => changes.deletes.push(key),
            }
        }
        Ok(changes)
    }
}

/// The keys of the documents that `event` touches, checked, each of them once: a document that is named
/// twice must not see the event twice (R9).
pub(crate) fn keys<P: Projection>(projection: &P, event: &Recorded<P::Event>) -> Result<Vec<String>, EngineError> {
    let mut keys = projection.keys(event);
    keys.sort_unstable();
    keys.dedup();
    for key in &keys {
        let well_formed = !key.is_empty() && key.len() <= MAX_KEY_BYTES && !key.chars().any(char::is_control);
        let allowed = P::ORDER == Order::PerKey || key == event.stream.id();
        if !well_formed || !allowed {
            return Err(EngineError::Key { key: key.clone(), event: Location::of(event) });
        }
    }
    Ok(keys)
}

/// Folds `event` into the documents under `keys`.
pub(crate) fn fold<P: Projection>(
    projection: &P,
    keys: &[String],
    event: &Recorded<P::Event>,
    documents: &mut BTreeMap<String, Option<P::Document>>,
) -> Result<(), EngineError> {
    for key in keys {
        let document = documents.entry(key.clone()).or_default();
        projection.fold(key, document, event).map_err(|reason| EngineError::Unfoldable {
            key: key.clone(),
            event: Location::of(event),
            reason,
        })?;
    }
    Ok(())
}

/// What is stored of the document under `key`.
pub(crate) fn encode<P: Projection>(key: &str, document: &P::Document) -> Result<Bytes, EngineError> {
    codec::encode(P::NAME, document).map_err(|reason| EngineError::Unwritable {
        projection: P::NAME,
        key: key.to_owned(),
        reason,
    })
}
