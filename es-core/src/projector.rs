//! The engine that keeps a read model: events in, documents and checkpoint out, in one commit.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::{
    event::{Categories, EventSet, Recorded, RecordedEvent},
    projection::{MAX_KEY_BYTES, Order, Projection, Unfoldable},
    read_model::{
        Changes, CommitError, Generation, GenerationState, PromoteError, ReadModelError, ReadModelStore, Shard,
    },
    rebuild,
    schema::{DecodeError, EncodeError},
    source::{EventSource, SourceError, Subscription},
    stream::Position,
    worker::{self, Handler, Step, Worker},
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
}

impl<P: Projection> Projector<P> {
    /// Folds the events of `source` through `projection` into `store`.
    pub fn new(projection: P, source: Arc<dyn EventSource>, store: Arc<dyn ReadModelStore>) -> Self {
        Self { projection, source, store, lease: Duration::from_secs(10) }
    }

    /// How long a worker that fell silent keeps its shards from others (10 s, unless set
    /// otherwise). A worker that stops in order gives them back at once.
    pub fn lease(self, ttl: Duration) -> Self {
        Self { lease: ttl, ..self }
    }

    /// Runs until `shutdown`; failures of the store and of the source are waited out.
    ///
    /// Where an older [`Projection::VERSION`] serves, it is replaced first: the new one is rebuilt
    /// beside it.
    ///
    /// # Errors
    /// What waiting cannot mend stops the projector at the event that it concerns (R11); of the batch
    /// that holds it nothing is folded.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the read model as of the last commit; its leases expire.
    /// Prefer `shutdown`, which gives them back.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), ProjectorError> {
        worker::persist(P::NAME, &shutdown, || Box::pin(self.serve(&shutdown))).await.map(|_| ())
    }

    async fn serve(&self, shutdown: &CancellationToken) -> Result<Option<()>, ProjectorError> {
        let Some(generation) = self.serving(shutdown).await? else { return Ok(None) };
        let worker = self.worker(&generation).await?;
        worker.run(shutdown, |step| Box::pin(self.still_serving(&generation, step))).await
    }

    /// Notices that the worker whose end it waits for is folding another generation by now. (A
    /// worker with shards of its own notices by being fenced.)
    async fn still_serving(&self, generation: &Generation, step: Step) -> Result<ControlFlow<()>, ProjectorError> {
        if step == Step::Standby && self.store.state(generation).await? != Some(GenerationState::Serving) {
            return Err(ProjectorError::Replaced);
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The generation of this version that serves; `None` when it was told to stop before there
    /// was one.
    async fn serving(&self, shutdown: &CancellationToken) -> Result<Option<Generation>, ProjectorError> {
        let serving = self.store.ensure_generation(P::NAME, P::VERSION, GenerationState::Serving).await?;
        if serving.version > P::VERSION {
            return Err(ProjectorError::Outdated { serving: serving.version, ours: P::VERSION });
        }
        if serving.version < P::VERSION {
            tracing::info!(projection = P::NAME, from = serving.version, to = P::VERSION, "rebuilding");
            return rebuild::rebuild_once(self, shutdown).await;
        }
        Ok(Some(serving))
    }

    pub(crate) async fn worker(&self, generation: &Generation) -> Result<Worker<'_>, ProjectorError> {
        if P::ORDER == Order::PerStream
            && !matches!(P::Event::categories(), Categories::Only(names) if names.len() == 1)
        {
            return Err(ProjectorError::NotPerStream);
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
    ) -> Result<Changes, ProjectorError> {
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
            let document = stored.map(|bytes| serde_json::from_slice(&bytes)).transpose();
            let document = document.map_err(|reason| ProjectorError::Document { key: key.clone(), reason })?;
            documents.insert(key, document);
        }
        for (keys, event) in &touching {
            fold(&self.projection, keys, event, &mut documents)?;
        }
        let mut changes = Changes::default();
        for (key, document) in documents {
            match document {
                Some(document) => {
                    let bytes =
                        serde_json::to_vec(&document).map_err(|reason| EncodeError { what: P::NAME, reason })?;
                    changes.upserts.push((key, bytes.into()));
                }
                None => changes.deletes.push(key),
            }
        }
        Ok(changes)
    }
}

/// The keys of the documents that `event` touches, checked.
pub(crate) fn keys<P: Projection>(projection: &P, event: &Recorded<P::Event>) -> Result<Vec<String>, ProjectorError> {
    let keys = projection.keys(event);
    for key in &keys {
        let well_formed = !key.is_empty() && key.len() <= MAX_KEY_BYTES && !key.chars().any(char::is_control);
        let allowed = P::ORDER == Order::PerKey || key == event.stream.id();
        if !well_formed || !allowed {
            return Err(ProjectorError::Key { key: key.clone(), event: Location::of(event) });
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
) -> Result<(), ProjectorError> {
    for key in keys {
        let document = documents.entry(key.clone()).or_default();
        projection.fold(key, document, event).map_err(|reason| ProjectorError::Unfoldable {
            key: key.clone(),
            event: Location::of(event),
            reason,
        })?;
    }
    Ok(())
}

/// Which event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Its place in the log.
    pub position: Position,
    /// Its stream and version.
    pub event: String,
}

impl Location {
    pub(crate) fn of<D>(event: &Recorded<D>) -> Self {
        Self { position: event.position, event: format!("{}@{}", event.stream, event.version) }
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at position {}", self.event, self.position)
    }
}

/// Why a projector, a rebuild or a policy stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectorError {
    /// The source cannot deliver.
    #[error("no events can be had")]
    Source(#[from] SourceError),
    /// The read model store failed.
    #[error(transparent)]
    Store(#[from] ReadModelError),
    /// Another worker has taken a shard.
    #[error("another worker has taken shard {0}")]
    Fenced(Shard),
    /// The generation that it kept no longer serves.
    #[error("another generation has taken its place")]
    Replaced,
    /// The read model was fed by another source, whose shards stand at different positions: there
    /// is no one position from which this source could go on. Rebuild it from this source.
    #[error("the read model is fed by another source and cannot go on from {0:?} without a rebuild")]
    OtherSource(String),
    /// A newer version of the projection serves: this program is too old for it.
    #[error("version {serving} serves, this program folds version {ours}")]
    Outdated {
        /// What serves.
        serving: u32,
        /// What this program knows.
        ours: u32,
    },
    /// The projection declares [`Order::PerStream`] and listens to more than one category.
    #[error("a projection in per-stream order listens to exactly one category")]
    NotPerStream,
    /// An event cannot be read (R14).
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A key breaks the rules of [`Projection::keys`], or, in per-stream order, is not the id of
    /// the event's stream.
    #[error("{event} asks for the document {key:?}, which is no key for it")]
    Key {
        /// The key.
        key: String,
        /// The event.
        event: Location,
    },
    /// An event contradicts its document.
    #[error("{event} cannot be folded into {key:?}")]
    Unfoldable {
        /// The document's key.
        key: String,
        /// The event.
        event: Location,
        /// The projection's own words.
        #[source]
        reason: Unfoldable,
    },
    /// A stored document does not have the form that the code expects.
    #[error("the document {key:?} does not fit; was the projection's version increased when its form changed?")]
    Document {
        /// Its key.
        key: String,
        /// In what way.
        #[source]
        reason: serde_json::Error,
    },
    /// A document cannot be written as JSON.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// It was told to stop in the middle of a batch of reactions, which come again.
    #[error("interrupted by the shutdown")]
    Interrupted,
    /// The rebuilt generation could not be promoted.
    #[error("the new generation cannot take its place")]
    Promote(#[source] PromoteError),
    /// A policy could not react.
    #[error("no reaction to {event}")]
    Reaction {
        /// The event.
        event: Location,
        /// The policy's own words.
        #[source]
        reason: crate::policy::PolicyError,
    },
}

impl ProjectorError {
    /// Whether waiting and trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Source(error) => error.is_transient(),
            Self::Store(_) | Self::Fenced(_) | Self::Replaced | Self::Interrupted => true,
            Self::Promote(error) => matches!(error, PromoteError::Store(_)),
            Self::Reaction { reason, .. } => reason.is_transient(),
            _ => false,
        }
    }
}

impl From<CommitError> for ProjectorError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Fenced(shard) => Self::Fenced(shard),
            CommitError::Store(error) => Self::Store(error),
        }
    }
}
