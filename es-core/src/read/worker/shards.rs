//! How a worker gets its shards, and shares them with other workers.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Held, Worker};
use crate::read::{
    engine_error::EngineError,
    failure::Attempts,
    read_model::{Acts, Changeover, Shard, Takeover, to_ask_for},
    source::{Batch, BatchEvents},
};

/// How long after an attempt a worker tries again to take a lease that another one holds: a bit less than a source waits for
/// events, so that it tries once in each step that waits.
const TRIES_AFTER: Duration = Duration::from_millis(400);

/// How long a worker leaves a shard that it has given back to the one that asked for it: longer than that one needs for two
/// attempts. If that one is gone, this one takes the shard again.
const LEAVES_FOR: Duration = Duration::from_millis(1_500);

/// How long a worker waits for an answer before it asks again: longer than a renewal takes, with which the others hear of it.
const ASKS_AFTER: Duration = Duration::from_secs(2);

impl Worker<'_> {
    /// Takes the leases that it wants and can get. Where other workers hold more than their part of the shards, it asks for some.
    pub(super) async fn take_wanted(&mut self, shutdown: &CancellationToken) -> Result<(), EngineError> {
        let now = Instant::now();
        let mut due: Vec<Shard> =
            self.wanted.iter().filter(|(_, from)| **from <= now).map(|(shard, _)| shard.clone()).collect();
        if due.is_empty() {
            return Ok(());
        }
        due.sort_unstable();
        // While it holds one of the shards that it shares with other workers, all of them are there.
        if !self.shares_shards() || self.held.is_empty() {
            // All shards of the source, not only the assigned ones: `reached` counts them all.
            let shards: Vec<Shard> = self.feed.shards().into_iter().chain(due.iter().cloned()).collect();
            match self.store.ensure_shards(&self.reader, &shards).await? {
                Changeover::Ready => {}
                Changeover::Busy => return Ok(()),
                Changeover::Uneven => return Err(EngineError::OtherSource(shards[0].source.clone())),
                Changeover::Parked => return Err(EngineError::ParkedKeys(shards[0].source.clone())),
            }
        }
        if !self.shares_shards() {
            for shard in due {
                self.take(shard, shutdown).await?;
            }
            return Ok(());
        }
        // One question for all of them.
        let shares = self.store.shares(&self.reader).await?;
        for shard in due {
            self.wanted.insert(shard.clone(), now + TRIES_AFTER);
            if !shares.iter().any(|share| share.shard == shard && share.owner != self.owner) {
                self.take(shard, shutdown).await?;
            }
        }
        let wanted = to_ask_for(&shares, self.owner);
        if now >= self.asks && !wanted.is_empty() {
            self.asks = now + ASKS_AFTER;
            self.store.ask_for(&self.reader, &wanted).await?;
        }
        Ok(())
    }

    /// Whether workers share the shards by their leases: not where the source assigns them.
    pub(super) fn shares_shards(&self) -> bool {
        self.feed.takeover() == Takeover::WhenFree && self.feed.shards().len() > 1
    }

    async fn take(&mut self, shard: Shard, shutdown: &CancellationToken) -> Result<(), EngineError> {
        let acquired = self.store.acquire(&self.reader, &shard, self.owner, self.feed.takeover(), self.ttl).await?;
        let Some(lease) = acquired else { return Ok(()) };
        self.wanted.remove(&shard);
        let checkpoint = lease.checkpoint.clone();
        // Before the source starts it: if that fails, this lease is released with the others.
        let held = Held {
            lease,
            kept: None,
            sent: None,
            end: None,
            attempts: Attempts::default(),
            rests: false,
            most: usize::MAX,
            refused: BTreeMap::new(),
            parked: HashSet::new(),
            letters: 0,
            is_asked_for: false,
            acts: Acts::default(),
            _reported: self.meter.holds(),
        };
        self.held.insert(shard.clone(), held);
        self.learn(&shard, shutdown).await?;
        self.feed.start(&shard, &checkpoint).await?;
        self.handler.takes(&shard);
        Ok(())
    }

    /// Gives back the shards that other workers ask for, with all that was handled of them committed.
    pub(super) async fn give_back(&mut self, shutdown: &CancellationToken) -> Result<(), EngineError> {
        let asked = self.held.values().filter(|held| held.is_asked_for).map(|held| held.lease.shard.clone());
        for shard in asked.collect::<Vec<_>>() {
            self.settle(&shard).await?;
            if let Some(checkpoint) = self.held.get(&shard).and_then(|held| held.kept.clone()) {
                let batch = Batch { shard: shard.clone(), events: BatchEvents::default(), checkpoint, end: None };
                self.fold(batch, true, shutdown).await?;
            }
            let Some(held) = self.held.remove(&shard) else { continue };
            self.feed.stop(&shard);
            self.waiting.retain(|batch| batch.shard != shard);
            self.handler.forget(&shard);
            self.store.release(&held.lease).await?;
            tracing::info!(name = self.reader.name, %shard, "gave the shard back to another worker");
            self.wanted.insert(shard, Instant::now() + LEAVES_FOR);
        }
        Ok(())
    }
}
