//! What a worker does until the next attempt at an event: it handles its other shards.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::read::{
    read_model::Shard,
    source::{Batch, SourceError},
};

/// How long the worker waits at once where the source cannot leave the shard out. In between it notices what the source tells it.
const SLICE: Duration = Duration::from_millis(100);

impl Worker<'_> {
    /// The first event of `batch` is tried again later. If the source can leave the shard out until then, the batch is dropped and read
    /// again; otherwise the worker waits, and the batch comes back.
    pub(super) async fn rest(&mut self, batch: Batch, shutdown: &CancellationToken) -> Option<Batch> {
        let held = self.held.get_mut(&batch.shard)?;
        if self.feed.stop(&batch.shard) {
            held.rests = true;
            return None;
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(held.attempts.wait().min(SLICE)) => {}
        }
        Some(batch)
    }

    /// Starts the shards again whose next attempt is due.
    pub(super) async fn end_rests(&mut self) -> Result<(), SourceError> {
        let due = self.held.iter_mut().filter(|(_, held)| held.rests && held.attempts.wait().is_zero());
        let due: Vec<(&Shard, _)> = due
            .map(|(shard, held)| {
                held.rests = false;
                (shard, held.lease.checkpoint.clone())
            })
            .collect();
        for (shard, checkpoint) in due {
            self.feed.start(shard, &checkpoint).await?;
        }
        Ok(())
    }

    /// Ends when the next attempt is due at an event of a shard that rests; never, if none does.
    pub(super) fn rests_until(&self) -> impl Future<Output = ()> + use<> {
        let waits = self.held.values().filter(|held| held.rests).map(|held| held.attempts.wait());
        let wait = waits.min();
        async move {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        }
    }
}
