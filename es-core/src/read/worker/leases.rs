//! Leases are renewed in a separate task, while the work that they protect continues.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::Counter;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::read::read_model::{CommitError, Lease, Leases, Shard};

/// The leases of one worker, and the task that renews them.
///
/// It is a separate task. On a runtime with several threads it runs also while a single call of `fold` takes longer than a lease
/// lasts. On a runtime with one thread it runs when the handler yields, which it does between events.
pub(super) struct Renewals {
    kept: Kept,
    ended: DropGuard,
    task: JoinHandle<()>,
    lost: Counter,
}

type Kept = Arc<Mutex<HashMap<Shard, Entry>>>;

struct Entry {
    lease: Lease,
    renewed: Instant,
    lost: bool,
    /// Tells the handler that its work on this shard will not be committed.
    stop: CancellationToken,
}

impl Renewals {
    pub(super) async fn new(store: Arc<dyn Leases>, ttl: Duration, lost: Counter) -> Self {
        let (kept, ended) = (Kept::default(), CancellationToken::new());
        let task = tokio::spawn(renew(kept.clone(), store, ttl, lost.clone(), ended.clone()));
        // A spawned task waits in a slot of this thread from which no other thread takes it: without a turn it would
        // begin only after the first call of `fold`.
        tokio::task::yield_now().await;
        Self { kept, ended: ended.drop_guard(), task, lost }
    }

    /// Renews `lease` from now on. The cancellation token that it returns is cancelled when the lease is lost or the shutdown comes.
    pub(super) fn keep(&self, lease: &Lease, shutdown: &CancellationToken) -> CancellationToken {
        let stop = shutdown.child_token();
        let entry = Entry { lease: lease.clone(), renewed: Instant::now(), lost: false, stop: stop.clone() };
        lock(&self.kept).insert(lease.shard.clone(), entry);
        stop
    }

    pub(super) fn forget(&self, shard: &Shard) {
        lock(&self.kept).remove(shard);
    }

    /// A commit has just renewed it.
    pub(super) fn renewed(&self, shard: &Shard) {
        if let Some(entry) = lock(&self.kept).get_mut(shard) {
            entry.renewed = Instant::now();
        }
    }

    /// A commit has found it lost.
    pub(super) fn lose(&self, shard: &Shard) {
        if let Some(entry) = lock(&self.kept).get_mut(shard) {
            entry.lose(&self.lost);
        }
    }

    /// A shard whose lease is lost although the worker did not drop it.
    pub(super) fn lost(&self) -> Option<Shard> {
        lock(&self.kept).values().find(|entry| entry.lost).map(|entry| entry.lease.shard.clone())
    }

    /// Stops all renewals. Only then can a lease be released, because a renewal that was already sent would take it again.
    pub(super) async fn end(self) {
        drop(self.ended);
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the renewal of leases has failed");
        }
    }
}

impl Entry {
    fn lose(&mut self, lost: &Counter) {
        if !std::mem::replace(&mut self.lost, true) {
            lost.increment(1);
        }
        self.stop.cancel();
    }
}

fn lock(kept: &Kept) -> MutexGuard<'_, HashMap<Shard, Entry>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Renews each lease after a third of its time, until `ended`.
async fn renew(kept: Kept, store: Arc<dyn Leases>, ttl: Duration, lost: Counter, ended: CancellationToken) {
    loop {
        tokio::select! {
            () = ended.cancelled() => return,
            () = tokio::time::sleep(ttl / 6) => {}
        }
        let is_due = |entry: &&Entry| !entry.lost && entry.renewed.elapsed() >= ttl / 3;
        let due: Vec<Lease> = lock(&kept).values().filter(is_due).map(|entry| entry.lease.clone()).collect();
        for lease in due {
            if ended.is_cancelled() {
                return;
            }
            let renewed = store.renew(&lease).await;
            // The shard may have been revoked meanwhile, and even assigned again, under another lease.
            let mut kept = lock(&kept);
            let Some(entry) =
                kept.get_mut(&lease.shard).filter(|entry| entry.lease.fencing_token == lease.fencing_token)
            else {
                continue;
            };
            match renewed {
                Ok(()) => entry.renewed = Instant::now(),
                Err(CommitError::Fenced(_)) => entry.lose(&lost),
                // The lease lasts for a while, and the next commit decides whether the store works.
                Err(CommitError::Store(error)) => {
                    tracing::warn!(shard = %lease.shard, error = &error as &dyn std::error::Error, "cannot renew the lease");
                }
            }
        }
    }
}
