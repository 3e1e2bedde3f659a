//! Proves that Kafka holds what the log holds.

mod clients;
mod compare;
mod cursor;
mod error;
mod judge;
mod objects;
mod reading;
mod violation;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use es_core::{
    EventStore, Position, RecordedEvent,
    backend::{Witness, check_contiguous},
};
use rdkafka::Message;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{
    clients::{Clients, PATIENCE, Stretch},
    compare::{At, Compare, Mismatch},
    judge::Evidence,
    objects::Objects,
    reading::Reading,
};
pub use self::{cursor::Cursor, error::ReconcileError, objects::ComparedObjects, violation::Violation};
use crate::{aside, config::RelayConfig, progress::Progress, record::Heading, topics::Topics};

/// How many events of the log are compared at once, at most.
const PAGE: usize = 2_000;

/// Proves that Kafka holds every event of a log up to the relay's progress: once, in its topic, under its key, in the partition of
/// its key, in order, and with equal content; and that these topics hold nothing else. It sees what a `read_committed` reader sees.
///
/// Payloads that are in object storage are compared too, if the `config` has the [claim check](RelayConfig::claim_check). Otherwise what
/// their records say of them (length and SHA-256) is compared with the log, and [`Reconciled::objects`] tells how many objects were not
/// looked at.
///
/// It changes nothing, joins no group, and may run beside relay and readers.
///
/// ```no_run
/// use es_core::MemoryStore;
/// use es_kafka::{Reconcile, RelayConfig};
///
/// # async fn run(store: MemoryStore) -> Result<(), Box<dyn std::error::Error>> {
/// let reconcile = Reconcile::new(store, RelayConfig::new("127.0.0.1:9092", "orders"));
/// let first = reconcile.run(None, |_| ()).await?;
/// assert_eq!(first.violation, None);
/// // Tomorrow, what was added since then.
/// let second = reconcile.run(Some(first.cursor), |_| ()).await?;
/// # Ok(())
/// # }
/// ```
pub struct Reconcile {
    store: Arc<dyn EventStore>,
    config: RelayConfig,
    buffer_bytes: usize,
    patience: Duration,
}

impl fmt::Debug for Reconcile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconcile")
            .field("config", &self.config)
            .field("buffer_bytes", &self.buffer_bytes)
            .finish_non_exhaustive()
    }
}

/// What a comparison has found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reconciled {
    /// The position after which this run has begun: 0 unless it continued another one.
    pub from: Position,
    /// Up to where everything is equal. It lies before a violation, so that the next run finds it again.
    pub cursor: Cursor,
    /// How far the relay had published when the run began.
    pub published: Position,
    /// The end of the log at that time.
    pub head: Position,
    /// The first difference; `None` where there is none.
    pub violation: Option<Violation>,
    /// The payloads that are in object storage.
    pub objects: ComparedObjects,
}

impl Reconcile {
    /// Compares the log of `store` with what the relay of this `config` publishes.
    pub fn new(store: impl EventStore, config: RelayConfig) -> Self {
        Self { store: Arc::new(store), config, buffer_bytes: 32 * 1024 * 1024, patience: PATIENCE }
    }

    /// How much memory may be taken for records that wait for their turn, in bytes (32 MiB by default). Two pages of the log
    /// and what the client reads ahead come on top. The limit of the latter, `queued.max.messages.kbytes` (16 MiB), counts keys and
    /// values only: with headers, short events take several times as much.
    pub fn buffer_bytes(self, buffer_bytes: usize) -> Self {
        Self { buffer_bytes, ..self }
    }

    /// How long it waits for records that brokers do not hand out, or that an open transaction hides (30 s by default).
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Compares from `cursor` on, or from the first event. A cursor of another filling of the topics is ignored. `told` hears
    /// how far it is, after every page.
    ///
    /// # Errors
    /// [`ReconcileError`] when nothing can be said. A difference is no error.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing. The last cursor that was told continues there.
    ///
    /// # Panics
    /// Its future panics outside of a tokio runtime with time enabled.
    pub async fn run(
        &self,
        cursor: Option<Cursor>,
        mut told: impl FnMut(&Cursor) + Send,
    ) -> Result<Reconciled, ReconcileError> {
        let stop = CancellationToken::new();
        let _stops = stop.clone().drop_guard();
        let clients = Clients::new(&self.config, self.patience, stop);
        let topics = Topics::new(&self.config.topic_prefix);

        let asks = clients.clone();
        let (progress, found, topics) = blocking(move || {
            let (mut found, has_progress) = asks.topics(&topics)?;
            let progress = if has_progress { asks.progress()? } else { None };
            // Where the relay publishes to, whatever this program declares.
            let targets = progress.as_ref().map(|progress| progress.targets.clone()).unwrap_or_default();
            let topics = topics.with_targets(targets);
            if !topics.targets().is_empty() {
                (found, _) = asks.topics(&topics)?;
            }
            Ok((progress, found, topics))
        })
        .await?;
        let head = self.store.head().await?;
        let progress = progress.unwrap_or_else(|| Progress::nothing(Uuid::nil()));
        let published = progress.position;
        let begin = cursor.filter(|cursor| cursor.fits(&progress)).unwrap_or_default();
        let begin = Cursor { incarnation: progress.incarnation, ..begin };
        let mut reconciled = Reconciled {
            from: begin.position,
            cursor: begin,
            published,
            head,
            violation: None,
            objects: ComparedObjects::default(),
        };

        let before = topics_differ(&progress, &found);
        let before = if before.is_none() { self.history_differs(&progress).await? } else { before };
        if before.is_some() {
            return self.confirmed(clients, Reconciled { violation: before, ..reconciled }).await;
        }
        let compare = Compare::new(topics.clone(), &progress, &reconciled.cursor);
        let (opens, buffer_bytes) = (clients.clone(), self.buffer_bytes);
        let objects = Objects::new(self.config.claim_check.as_ref());
        let reading = match blocking(move || Reading::open(opens, compare, objects, buffer_bytes)).await? {
            Ok(reading) => Arc::new(Mutex::new(reading)),
            Err(violation) => {
                return self.confirmed(clients, Reconciled { violation: Some(violation), ..reconciled }).await;
            }
        };

        let mut events = self.page(reconciled.cursor.position, published).await?;
        while let Some(last) = events.last().map(|event| event.position) {
            let compared = reading.clone();
            let comparing = blocking(move || {
                let mut reading = compared.lock().unwrap_or_else(PoisonError::into_inner);
                reading.page(&events)
            });
            // While one page is compared, the store reads the next one.
            let (mismatch, next) = tokio::join!(comparing, self.page(last, published));
            let mismatch = mismatch?;
            (reconciled.cursor, reconciled.objects) = {
                let reading = reading.lock().unwrap_or_else(PoisonError::into_inner);
                (reading.compare.cursor(&progress), reading.objects.compared)
            };
            if let Some(mismatch) = mismatch {
                let violation = self.explain(mismatch, &clients, &reading, &progress).await?;
                return self.confirmed(clients, Reconciled { violation: Some(violation), ..reconciled }).await;
            }
            told(&reconciled.cursor);
            events = next?;
        }
        let (compared, until) = (reading.clone(), progress.clone());
        let rest = blocking(move || compared.lock().unwrap_or_else(PoisonError::into_inner).rest(&until)).await?;
        let violation = if let Some(mismatch) = rest {
            Some(self.explain(mismatch, &clients, &reading, &progress).await?)
        } else {
            let (asks, until) = (clients.clone(), progress.clone());
            blocking(move || beyond(&asks, &topics, &until)).await?
        };
        if violation.is_none() {
            reconciled.cursor = reading.lock().unwrap_or_else(PoisonError::into_inner).compare.cursor(&progress);
        }
        self.confirmed(clients, Reconciled { violation, ..reconciled }).await
    }

    /// The next events of the log, as far as they are published.
    async fn page(&self, after: Position, published: Position) -> Result<Vec<RecordedEvent>, ReconcileError> {
        if after >= published {
            return Ok(Vec::new());
        }
        let mut events = self.store.read_log(after, PAGE).await?;
        if events.is_empty() {
            let reason = format!("the log ended at position {published}, and ends at {after} now");
            return Err(ReconcileError::Unavailable(reason.into()));
        }
        check_contiguous(after, &events)?;
        events.retain(|event| event.position <= published);
        Ok(events)
    }

    /// Whether the log is another one than that which was published.
    async fn history_differs(&self, progress: &Progress) -> Result<Option<Violation>, ReconcileError> {
        let position = progress.position;
        if position == Position::ZERO {
            return Ok(None);
        }
        let before = Position::new(position.get().saturating_sub(1));
        let found = self.store.read_log(before, 1).await?.first().map(Witness::of);
        let differs = found != Some(progress.witness());
        let found = found.map_or_else(|| "no event".to_owned(), |found| found.to_string());
        let published = progress.witness().to_string();
        Ok(differs.then_some(Violation::OtherHistory { position, published, found }))
    }

    /// Looks up what a difference means.
    async fn explain(
        &self,
        mismatch: Mismatch,
        clients: &Clients,
        reading: &Arc<Mutex<Reading>>,
        progress: &Progress,
    ) -> Result<Violation, ReconcileError> {
        let mut evidence = Evidence::default();
        if let Some(claimed) = mismatch.claimed().filter(|claimed| *claimed > Position::ZERO) {
            let before = Position::new(claimed.get() - 1);
            let logged = self.store.read_log(before, 1).await?.pop().filter(|event| event.position == claimed);
            let reading = reading.lock().unwrap_or_else(PoisonError::into_inner);
            evidence.logged = logged.map(|event| {
                let place = reading.compare.place(&event);
                (event, place)
            });
        }
        if let Some(wanted) = mismatch.wanted().cloned() {
            let (asks, progress) = (clients.clone(), progress.clone());
            evidence.elsewhere = blocking(move || search(&asks, &progress, &wanted.topic, wanted.position)).await?;
        }
        Ok(mismatch.judge(evidence, progress.position))
    }

    /// A violation counts only if the topics were not filled again meanwhile.
    async fn confirmed(&self, clients: Clients, reconciled: Reconciled) -> Result<Reconciled, ReconcileError> {
        if reconciled.violation.is_some() && !reconciled.cursor.incarnation.is_nil() {
            let incarnation = reconciled.cursor.incarnation;
            let now = blocking(move || clients.progress()).await?;
            if now.is_some_and(|now| now.incarnation != incarnation) {
                return Err(ReconcileError::Refilled);
            }
        }
        Ok(reconciled)
    }
}

/// Topics that have another number of partitions than when the relay first wrote to them.
fn topics_differ(progress: &Progress, found: &BTreeMap<String, Vec<i32>>) -> Option<Violation> {
    progress.partitions.iter().find_map(|(topic, known)| {
        let count = found.get(topic).map_or(0, Vec::len);
        let (topic, known, found) = (topic.clone(), *known, i32::try_from(count).unwrap_or(i32::MAX));
        (known != found).then_some(Violation::Partitions { topic, known, found })
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReconcileError> + Send + 'static,
) -> Result<T, ReconcileError> {
    aside::done(work).await.map_err(ReconcileError::Unavailable)?
}

/// The records of a topic that claim `position`, among those of which the progress speaks.
fn search(clients: &Clients, progress: &Progress, topic: &str, position: Position) -> Result<Vec<At>, ReconcileError> {
    let consumer = clients.consumer()?;
    let mut stretches = Vec::new();
    for partition in 0..progress.partitions.get(topic).copied().unwrap_or_default() {
        let (from, _) = Clients::watermarks(&consumer, topic, partition)?;
        stretches.push(Stretch { partition, from, until: progress.offsets.next(topic, partition) });
    }
    let mut found = Vec::new();
    clients.scan(topic, &stretches, |record| {
        if Heading::claimed(record).is_ok_and(|heading| heading.position == position) {
            found.push(At { topic: topic.to_owned(), partition: record.partition(), offset: record.offset() });
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// A committed record beyond what the relay has published, in any of its topics.
///
/// Records that are committed when they are read belong to a transaction whose progress record was written before it was
/// committed: a progress that is looked up after that speaks of them, if they are the relay's.
fn beyond(clients: &Clients, topics: &Topics, progress: &Progress) -> Result<Option<Violation>, ReconcileError> {
    let (found, has_progress) = clients.topics(topics)?;
    let mut seen = BTreeMap::<(String, i32), Vec<i64>>::new();
    let consumer = clients.consumer()?;
    for (topic, partitions) in &found {
        let mut stretches = Vec::new();
        for partition in partitions {
            let (first, until) = Clients::watermarks(&consumer, topic, *partition)?;
            let from = progress.offsets.next(topic, *partition).max(first);
            stretches.push(Stretch { partition: *partition, from, until });
        }
        clients.scan(topic, &stretches, |record| {
            let offsets = seen.entry((topic.clone(), record.partition())).or_default();
            // The last one decides; the first one is named if all are foreign.
            offsets.truncate(1);
            offsets.push(record.offset());
            ControlFlow::Continue(())
        })?;
    }
    if seen.is_empty() {
        return Ok(None);
    }
    let now = if has_progress { clients.progress()? } else { None };
    let now = now.unwrap_or_else(|| Progress::nothing(Uuid::nil()));
    Ok(seen.into_iter().find_map(|((topic, partition), offsets)| {
        let known = now.offsets.next(&topic, partition);
        let offset = offsets.into_iter().find(|offset| *offset >= known)?;
        let reason = format!("it lies beyond the relay's progress, which is position {}", now.position);
        Some(At { topic, partition, offset }.foreign(reason))
    }))
}
