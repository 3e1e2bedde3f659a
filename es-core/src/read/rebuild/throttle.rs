//! A rebuild gives way to appends: its source waits between pages while appends take longer than they may.

mod share;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;

use self::share::Share;
use crate::{
    read::{
        heartbeat,
        read_model::{Checkpoint, Shard, Takeover},
        source::{Delivery, EventFeed, EventSource, SourceError, Subscription},
    },
    write::store::EventStore,
};

/// How often an append is probed at most.
const PROBE_EVERY: Duration = Duration::from_millis(25);

/// How often it is probed at least.
const PROBE_WITHIN: Duration = Duration::from_secs(1);

/// A probe takes this part of the time at most, since on a file it holds up writers.
const PROBES: u32 = 20;

/// The longest pause before a page: a reader notices shutdowns, rebalances and operators between its pages.
const PAUSE: Duration = Duration::from_secs(1);

/// The most that is owed: a commit that took very long is not followed by minutes of pauses.
const MOST_OWED: Duration = Duration::from_secs(20);

/// Keeps the 99th percentile of the time that appends take within a limit while read models are rebuilt.
///
/// It probes, up to 40 times a second, how long an append would take at this moment ([`EventStore::probe`]). So it does not matter
/// which processes append, and whether any does. A rebuild whose source is [wrapped](Self::on) works for a part of the time and
/// pauses between pages for the rest: for a quarter at first, for half of that as soon as two of a hundred probes take longer than
/// the limit, and for a tenth of the time more after a hundred probes of which none did. It works for a twentieth of the time, or
/// one page a second, in any case: where appends are slow for another reason the rebuild goes on.
///
/// A single write of a rebuild is not interrupted. [`Projector::document_bytes`](crate::Projector::document_bytes) bounds it.
///
/// ```
/// # use es_core::{MemoryStore, Service, testing::account::{Account, Ledger}};
/// use std::time::Duration;
///
/// use es_core::Throttle;
/// use tokio_util::sync::CancellationToken;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let service = Service::builder("accounts", MemoryStore::new())
/// #     .aggregate::<Account>()
/// #     .projection(Ledger::<1>::default())
/// #     .start()
/// #     .await?;
/// let throttle = Throttle::keeping(Duration::from_millis(5), service.store());
/// service.rebuild::<Ledger<1>>(throttle.on(service.log()), CancellationToken::new()).await?;
/// # Ok(())
/// # }
/// ```
///
/// Clones are the same throttle: rebuilds that share one get the same part of the time each. It probes only while one of them is at
/// work. For the builds of a projector that follows a raised [`Projection::VERSION`](crate::Projection::VERSION), give it to
/// [`Projector::throttle`](crate::Projector::throttle).
#[derive(Debug, Clone)]
pub struct Throttle(Arc<Inner>);

struct Inner {
    limit: Duration,
    log: Arc<dyn EventStore>,
    share: Mutex<Share>,
    probing: Mutex<Weak<Probing>>,
}

/// Kept by the feeds that are open: probes go on until the last one is dropped.
#[derive(Debug)]
struct Probing;

/// What a [`Throttle`] does at this moment.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Throttling {
    /// The part of the time for which rebuilds work: 1 means that they do not pause.
    pub share: f64,
    /// The 99th percentile of the last hundred probes; `None` until there are so many.
    pub append_p99: Option<Duration>,
    /// The limit.
    pub limit: Duration,
}

impl Throttle {
    /// Keeps the 99th percentile of appends to `log` within `append_p99`. Appends of a few bytes, from just before they have their
    /// turn until they are durable: what `append_duration_seconds` tells of a quiet store is a little more.
    pub fn keeping(append_p99: Duration, log: impl EventStore) -> Self {
        Self(Arc::new(Inner {
            limit: append_p99,
            log: Arc::new(log),
            share: Mutex::new(Share::keeping(append_p99)),
            probing: Mutex::default(),
        }))
    }

    /// `source`, at the pace that appends leave.
    ///
    /// # Panics
    /// To open it may panic outside of a tokio runtime.
    pub fn on(&self, source: impl EventSource) -> Arc<dyn EventSource> {
        Arc::new(Throttled { source: Arc::new(source), throttle: self.0.clone() })
    }

    /// What it does at this moment.
    pub fn state(&self) -> Throttling {
        let share = self.0.share();
        Throttling { share: share.now(), append_p99: share.p99(), limit: self.0.limit }
    }
}

impl Inner {
    fn share(&self) -> MutexGuard<'_, Share> {
        self.share.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Probes as long as what this returns is kept.
    fn probing(self: &Arc<Self>) -> Arc<Probing> {
        let mut probing = self.probing.lock().unwrap_or_else(PoisonError::into_inner);
        probing.upgrade().unwrap_or_else(|| {
            let begun = Arc::new(Probing);
            *probing = Arc::downgrade(&begun);
            // Not on the runtime of the rebuild: its folds keep that busy, and the probes would measure them.
            heartbeat::spawn(probe(self.clone(), Arc::downgrade(&begun)));
            begun
        })
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// Probes while `probing` is kept. A store that does not answer counts as one that takes too long.
async fn probe(throttle: Arc<Inner>, probing: Weak<Probing>) {
    let mut fails = false;
    while probing.strong_count() > 0 {
        let probed = throttle.log.probe().await;
        let took = match &probed {
            Ok(took) => *took,
            Err(error) => {
                if !fails {
                    let error = error as &dyn std::error::Error;
                    tracing::warn!(error, "cannot probe how long appends take: rebuilds work as little as they may");
                }
                Duration::MAX
            }
        };
        fails = probed.is_err();
        throttle.share().note(took);
        tokio::time::sleep(took.saturating_mul(PROBES).clamp(PROBE_EVERY, PROBE_WITHIN)).await;
    }
}

/// A source whose feeds pause.
#[derive(Debug)]
struct Throttled {
    source: Arc<dyn EventSource>,
    throttle: Arc<Inner>,
}

#[async_trait]
impl EventSource for Throttled {
    async fn open(&self, subscription: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        let feed = self.source.open(subscription).await?;
        Ok(Box::new(ThrottledFeed::new(feed, self.throttle.clone(), self.throttle.probing())))
    }
}

#[derive(Debug)]
struct ThrottledFeed {
    feed: Box<dyn EventFeed>,
    throttle: Arc<Inner>,
    /// Since when the last page is being read and handled.
    working: Option<Instant>,
    /// The pauses that are due.
    owed: Duration,
    /// The end of the pause that has begun.
    until: Option<Instant>,
    _probing: Arc<Probing>,
}

impl ThrottledFeed {
    fn new(feed: Box<dyn EventFeed>, throttle: Arc<Inner>, probing: Arc<Probing>) -> Self {
        Self { feed, throttle, working: None, owed: Duration::ZERO, until: None, _probing: probing }
    }

    /// Makes a part of the pauses that are due.
    async fn pause(&mut self) {
        if let Some(working) = self.working.take() {
            let pause = self.throttle.share().pause_after(working.elapsed());
            self.owed = self.owed.saturating_add(pause).min(MOST_OWED);
        }
        if self.owed.is_zero() {
            return;
        }
        let pause = self.owed.min(PAUSE);
        // If this future is dropped, the next one continues the pause.
        tokio::time::sleep_until(*self.until.get_or_insert_with(|| Instant::now() + pause)).await;
        (self.until, self.owed) = (None, self.owed.saturating_sub(pause));
    }
}

#[async_trait]
impl EventFeed for ThrottledFeed {
    fn shards(&self) -> Vec<Shard> {
        self.feed.shards()
    }

    fn takeover(&self) -> Takeover {
        self.feed.takeover()
    }

    async fn next(&mut self) -> Result<Delivery, SourceError> {
        self.pause().await;
        let asked = Instant::now();
        let delivery = self.feed.next().await?;
        if let Delivery::Batch(batch) = &delivery
            && !batch.events.is_empty()
        {
            // At the end of the source it waits for events, which is no work.
            self.working = Some(if batch.end.is_some() { Instant::now() } else { asked });
        }
        Ok(delivery)
    }

    fn urgent(&mut self) -> Option<Delivery> {
        self.feed.urgent()
    }

    async fn start(&mut self, shard: &Shard, checkpoint: &Checkpoint) -> Result<(), SourceError> {
        self.feed.start(shard, checkpoint).await
    }

    fn stop(&mut self, shard: &Shard) -> bool {
        self.feed.stop(shard)
    }

    fn committed(&mut self, shard: &Shard, checkpoint: &Checkpoint) {
        self.feed.committed(shard, checkpoint);
    }
}
