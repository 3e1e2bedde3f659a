//! Commits that are on their way while the next events are handled.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};
use tracing::Instrument;

use super::Worker;
use crate::{
    of_engine::likewise,
    read::{
        engine_error::EngineError,
        read_model::{Changes, Checkpoint, CommitError, Lease, Leases, ReadModelError, Shard},
        source::BatchEvents,
    },
};

/// A commit that was sent. Dropped, it is as any commit whose future is dropped.
pub(super) struct Sent {
    /// The checkpoint that it writes.
    pub(super) checkpoint: Checkpoint,
    /// The events that it is about.
    events: BatchEvents,
    /// How long they were handled.
    took: Duration,
    commit: JoinSet<(Result<(), CommitError>, Duration)>,
}

impl Sent {
    pub(super) fn new(
        store: &Arc<dyn Leases>,
        lease: &Lease,
        changes: Changes,
        events: BatchEvents,
        took: Duration,
    ) -> Self {
        let (store, lease, checkpoint) = (store.clone(), lease.clone(), changes.checkpoint.clone());
        let mut commit = JoinSet::new();
        let sent = async move {
            let began = Instant::now();
            (store.commit(&lease, changes).await, began.elapsed())
        };
        commit.spawn(likewise(sent).in_current_span());
        Self { checkpoint, events, took, commit }
    }

    /// How it ends, and how long it took.
    pub(super) async fn outcome(mut self) -> (Result<(), CommitError>, Duration) {
        match self.commit.join_next().await {
            Some(Ok(outcome)) => outcome,
            Some(Err(panicked)) => (Err(ReadModelError(panicked.into()).into()), Duration::ZERO),
            None => (Err(ReadModelError("the commit was dropped".into()).into()), Duration::ZERO),
        }
    }
}

impl Worker<'_> {
    /// Waits for the commit of the shard that is on its way. If the lease was lost, it is marked as such.
    ///
    /// # Errors
    /// Those of the commit.
    pub(super) async fn settle(&mut self, shard: &Shard) -> Result<(), EngineError> {
        let Some(held) = self.held.get_mut(shard) else { return Ok(()) };
        let Some(sent) = held.sent.take() else { return Ok(()) };
        let (checkpoint, events, handled) = (sent.checkpoint.clone(), sent.events.clone(), sent.took);
        let (outcome, took) = sent.outcome().await;
        if let Err(CommitError::Fenced(_)) = outcome {
            // If the shard was revoked in the meantime, this is no error.
            held.lease.hold().lose();
            return Ok(());
        }
        outcome?;
        self.feed.committed(shard, &checkpoint);
        held.lease.checkpoint = checkpoint;
        held.most = held.most.saturating_mul(2);
        held.refused.clear();
        self.meter.processed(&events, handled + took);
        Ok(())
    }

    /// Waits for all commits that are on their way.
    ///
    /// # Errors
    /// As [`settle`](Self::settle).
    pub(super) async fn settle_all(&mut self) -> Result<(), EngineError> {
        let sent = self.held.iter().filter(|(_, held)| held.sent.is_some());
        for shard in sent.map(|(shard, _)| shard.clone()).collect::<Vec<_>>() {
            self.settle(&shard).await?;
        }
        Ok(())
    }
}
