//! What projectors, rebuilds and policies have in common: carrying the shards of a source through
//! a handler, one committed batch after the other.

use std::{collections::HashMap, ops::ControlFlow, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    error::EngineError,
    event::RecordedEvent,
    read_model::{Changeover, Changes, CommitError, Generation, Lease, ReadModelStore, Shard},
    source::{Batch, Delivery, EventFeed, EventSource, Subscription},
};

/// The boxed future of an engine's own step. (An async closure's future cannot be named, so a
/// caller that spawns an engine could not see that it is `Send`.)
pub(crate) type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, EngineError>> + Send + 'a>>;

/// What is done with a batch. The changes that it returns commit together with the checkpoint.
#[async_trait]
pub(crate) trait Handler: Send + Sync {
    async fn handle(
        &self,
        generation: &Generation,
        events: Vec<RecordedEvent>,
        shutdown: &CancellationToken,
    ) -> Result<Changes, EngineError>;
}

/// One reader of a source. When a step fails it is spent: drop it and open another one, which goes
/// on at the committed checkpoints.
pub(crate) struct Worker<'a> {
    handler: &'a dyn Handler,
    store: Arc<dyn ReadModelStore>,
    generation: Generation,
    feed: Box<dyn EventFeed>,
    owner: Uuid,
    ttl: Duration,
    held: HashMap<Shard, Held>,
    /// Assigned shards whose lease another worker still holds.
    wanted: Vec<Shard>,
}

struct Held {
    lease: Lease,
    renewed: Instant,
    at_end: bool,
}

/// What a step has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Another worker holds everything that was assigned to this one.
    Standby,
    /// Something was done.
    Worked,
    /// Everything that the source has for this worker is done.
    AtEnd,
}

impl<'a> Worker<'a> {
    pub(crate) async fn open(
        handler: &'a dyn Handler,
        source: &dyn EventSource,
        subscription: &Subscription,
        store: Arc<dyn ReadModelStore>,
        generation: Generation,
        ttl: Duration,
    ) -> Result<Self, EngineError> {
        let feed = source.open(subscription).await?;
        let (held, wanted) = (HashMap::new(), Vec::new());
        Ok(Self { handler, store, generation, feed, owner: Uuid::now_v7(), ttl, held, wanted })
    }

    /// Steps until the shutdown (`None`), or until `after` has seen a step that breaks it off.
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
        self.release().await;
        outcome
    }

    /// Takes in what the source delivers next; `None` is the shutdown. Documents that are being
    /// folded are committed before a shutdown is heard (R16).
    async fn step(&mut self, shutdown: &CancellationToken) -> Result<Option<Step>, EngineError> {
        let delivery = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(None),
            delivery = self.feed.next() => delivery?,
        };
        match delivery {
            Delivery::Assigned(shards) => self.wanted.extend(shards),
            Delivery::Revoked(shards) => {
                self.wanted.retain(|shard| !shards.contains(shard));
                self.held.retain(|shard, _| !shards.contains(shard));
            }
            Delivery::Batch(batch) => self.fold(batch, shutdown).await?,
            Delivery::Idle => {}
        }
        self.take_wanted().await?;
        self.renew().await?;
        Ok(Some(if self.held.is_empty() {
            Step::Standby
        } else if self.wanted.is_empty() && self.held.values().all(|held| held.at_end) {
            Step::AtEnd
        } else {
            Step::Worked
        }))
    }

    /// Gives the leases back, so that the next worker need not wait for their end.
    async fn release(&mut self) {
        for (shard, held) in self.held.drain() {
            if let Err(error) = self.store.release(&held.lease).await {
                tracing::warn!(%shard, error = &error as &dyn std::error::Error, "cannot release the lease; it will expire");
            }
        }
    }

    async fn fold(&mut self, mut batch: Batch, shutdown: &CancellationToken) -> Result<(), EngineError> {
        // A batch that was on its way when its shard was revoked is someone else's.
        let Some(held) = self.held.get_mut(&batch.shard) else { return Ok(()) };
        held.at_end = batch.at_end;
        let before = held.lease.checkpoint.position;
        // Within a shard positions only grow: this is the whole of exactly-once (R9).
        batch.events.retain(|event| event.position > before);
        if batch.events.is_empty() && batch.checkpoint.position <= before {
            return Ok(());
        }
        let handled = {
            let mut handling = self.handler.handle(&self.generation, batch.events, shutdown);
            loop {
                tokio::select! {
                    biased;
                    handled = &mut handling => break handled,
                    // However long it takes, the lease must not expire meanwhile.
                    () = tokio::time::sleep(self.ttl / 3) => self.store.renew(&held.lease, self.ttl).await?,
                }
            }
        };
        if handled.is_err() {
            // Only the holder of the lease has a say: the documents of a generation that was replaced
            // in the meantime are being deleted, and nothing fits them any more.
            self.store.renew(&held.lease, self.ttl).await?;
        }
        let mut changes = handled?;
        changes.checkpoint = batch.checkpoint;
        let checkpoint = changes.checkpoint.clone();
        self.store.commit(&held.lease, changes, self.ttl).await?;
        held.lease.checkpoint = checkpoint;
        held.renewed = Instant::now();
        Ok(())
    }

    async fn take_wanted(&mut self) -> Result<(), EngineError> {
        if self.wanted.is_empty() {
            return Ok(());
        }
        // All shards of the source, and not only the wanted ones: `reached` counts them all.
        let shards: Vec<Shard> = self.feed.shards().into_iter().chain(self.wanted.iter().cloned()).collect();
        match self.store.ensure_shards(&self.generation, &shards).await? {
            Changeover::Ready => {}
            Changeover::Busy => return Ok(()),
            Changeover::Uneven => return Err(EngineError::OtherSource(shards[0].source().to_owned())),
        }
        for shard in std::mem::take(&mut self.wanted) {
            let takeover = self.feed.takeover();
            match self.store.acquire(&self.generation, &shard, self.owner, takeover, self.ttl).await? {
                Some(lease) => {
                    self.feed.start(&shard, &lease.checkpoint).await?;
                    self.held.insert(shard, Held { lease, renewed: Instant::now(), at_end: false });
                }
                None => self.wanted.push(shard),
            }
        }
        Ok(())
    }

    async fn renew(&mut self) -> Result<(), CommitError> {
        for held in self.held.values_mut().filter(|held| held.renewed.elapsed() > self.ttl / 3) {
            self.store.renew(&held.lease, self.ttl).await?;
            held.renewed = Instant::now();
        }
        Ok(())
    }
}

/// Makes attempts until one ends well or in vain, or the shutdown comes (`None`). Between two of
/// them it waits: 50 ms at first, up to 5 s, with jitter; from the start again after an attempt
/// that held for a while.
pub(crate) async fn persist<'a, T>(
    name: &'static str,
    shutdown: &CancellationToken,
    attempt: impl Fn() -> Pending<'a, Option<T>>,
) -> Result<Option<T>, EngineError> {
    let mut failures = 0_u32;
    while !shutdown.is_cancelled() {
        let started = Instant::now();
        match attempt().await {
            Err(error) if error.is_transient() && shutdown.is_cancelled() => break,
            Err(error) if error.is_transient() => {
                tracing::warn!(name, error = &error as &dyn std::error::Error, "going on after a pause");
            }
            ended => return ended,
        }
        failures = if started.elapsed() > Duration::from_secs(30) { 0 } else { failures + 1 };
        let longest = Duration::from_millis(50 << failures.min(7)).min(Duration::from_secs(5));
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(longest.mul_f64(0.5 + fastrand::f64() / 2.0)) => {}
        }
    }
    Ok(None)
}
