//! Reactions: events in, commands out (choreography).

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::{
    append::{IdempotencyKey, InvalidKey},
    error::{BoxError, EngineError, Location},
    event::{EventSet, Metadata, Recorded, RecordedEvent},
    execute::{Context, ExecuteError, LoadError},
    projection::Order,
    read_model::{Changes, Generation, GenerationState, ReadModelStore},
    source::{EventSource, Subscription},
    store::{AppendError, ReadError},
    worker::{self, Handler, Worker},
};

/// Reacts to events with commands.
///
/// # Delivery
/// Events come in log order. A crash between a reaction and its checkpoint repeats the reaction,
/// so the commands carry an idempotency key: [`reaction`] makes one from the event.
#[async_trait]
pub trait Policy: Send + Sync + 'static {
    /// Its stable name; shares the name space of projections.
    const NAME: &'static str;

    /// What it listens to.
    type Event: EventSet;

    /// Brings about what follows from `event`.
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
pub fn reaction<D>(event: &Recorded<D>, policy: &str, step: &str) -> Result<Context, InvalidKey> {
    let key = IdempotencyKey::new(format!("{policy}/{}/{step}", event.id))?;
    Ok(Context::from(Metadata::caused_by(event)).idempotent(key, b""))
}

/// Why a policy did not react.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Trying again may help.
    #[error("a reaction failed for now")]
    Transient(#[source] BoxError),
    /// Trying again is in vain.
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
        match error {
            ExecuteError::Contended { .. }
            | ExecuteError::Load(LoadError::Read(ReadError::Store(_)))
            | ExecuteError::Append(AppendError::Store(_) | AppendError::Closed) => Self::Transient(error.into()),
            _ => Self::Permanent(error.into()),
        }
    }
}

impl From<InvalidKey> for PolicyError {
    fn from(error: InvalidKey) -> Self {
        Self::Permanent(error.into())
    }
}

/// Runs a policy and keeps its checkpoint.
#[derive(Debug)]
pub struct PolicyRunner<P> {
    policy: P,
    source: Arc<dyn EventSource>,
    store: Arc<dyn ReadModelStore>,
    lease: Duration,
}

impl<P: Policy> PolicyRunner<P> {
    /// Lets `policy` react to the events of `source`; its checkpoint is kept in `store`.
    pub fn new(policy: P, source: Arc<dyn EventSource>, store: Arc<dyn ReadModelStore>) -> Self {
        Self { policy, source, store, lease: Duration::from_secs(10) }
    }

    /// How long a runner that fell silent keeps others from taking over, as
    /// [`Projector::lease`](crate::projector::Projector::lease).
    pub fn lease(self, ttl: Duration) -> Self {
        Self { lease: ttl, ..self }
    }

    /// Runs until `shutdown`; failures of the stores and of the source are waited out.
    ///
    /// # Errors
    /// What waiting cannot mend stops the policy at the event that it concerns (R11).
    ///
    /// # Cancel safety
    /// Dropping the future may repeat the reactions to the last batch of events.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), EngineError> {
        worker::persist(P::NAME, &shutdown, || Box::pin(self.follow(&shutdown))).await.map(|_| ())
    }

    /// Waits out what is transient here, at the event: the reactions to those before it need not be
    /// repeated.
    async fn react(&self, event: &Recorded<P::Event>, shutdown: &CancellationToken) -> Result<(), EngineError> {
        let reacted = worker::persist(P::NAME, shutdown, || {
            Box::pin(async {
                let reacted = self.policy.react(event).await;
                reacted.map(Some).map_err(|reason| {
                    let (event, transient) = (Location::of(event), reason.is_transient());
                    EngineError::Reaction { event, transient, reason: reason.into() }
                })
            })
        });
        reacted.await?.ok_or(EngineError::Interrupted)
    }

    async fn follow(&self, shutdown: &CancellationToken) -> Result<Option<()>, EngineError> {
        let generation = self.store.ensure_generation(P::NAME, 1, GenerationState::Serving).await?;
        let (reader, categories) = (P::NAME.to_owned(), P::Event::categories());
        let subscription = Subscription { reader, categories, order: Order::PerKey };
        let store = self.store.clone();
        let worker = Worker::open(self, &*self.source, &subscription, store, generation, self.lease).await?;
        worker.run(shutdown, |_| Box::pin(async { Ok(ControlFlow::Continue(())) })).await
    }
}

#[async_trait]
impl<P: Policy> Handler for PolicyRunner<P> {
    async fn handle(
        &self,
        _: &Generation,
        events: Vec<RecordedEvent>,
        shutdown: &CancellationToken,
    ) -> Result<Changes, EngineError> {
        for event in &events {
            if shutdown.is_cancelled() {
                return Err(EngineError::Interrupted);
            }
            if let Some(event) = event.decode::<P::Event>()? {
                self.react(&event, shutdown).await?;
            }
        }
        Ok(Changes::default())
    }
}
