//! The engine that keeps a read model: events in, documents and checkpoint out, in one commit.

mod documents;
mod inline;
mod kept;
mod part;
#[cfg(test)]
mod tests;
pub(crate) mod unique;

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{inline::Inline, kept::KeptDocuments, unique::UniqueValues};
use crate::{
    codec,
    event::{Categories, EventSet, Recorded},
    limits::MAX_KEY_BYTES,
    read::{
        candidate::{Candidate, Subject},
        definition,
        engine_error::{EngineError, Location},
        failure::{FailurePolicy, FailureSettings},
        field::DocumentField,
        projection::{EventOrder, Projection},
        read_model::{FieldChange, ReadModelStore, Reader},
        rebuild::{Throttle, throttled},
        source::{EventSource, SourceError, Split, Subscription},
        standby::Standby,
        worker::{DEFAULT_LEASE, Handler, Worker},
        worker_state::{StateReport, WorkerState},
    },
    stream::has_control,
};

/// Keeps the read model of one projection up to date.
///
/// Any number of workers of the same projection may run, in any number of processes. Leases and fencing tokens make sure that
/// one of them folds each [shard](Self::shards), and another takes over when it stops.
///
/// # Delivery
/// Documents and checkpoint commit together (R9). After crashes, repeated deliveries, rebalances and stalled workers the read
/// model is equal to the fold of the log.
///
/// # Panics
/// Its futures panic outside of a tokio runtime with time enabled.
#[derive(Debug)]
pub struct Projector<P: Projection> {
    pub(crate) projection: P,
    pub(crate) source: Arc<dyn EventSource>,
    pub(crate) store: Arc<dyn ReadModelStore>,
    pub(crate) lease: Duration,
    shards: u32,
    pub(crate) document_bytes: usize,
    standby: Standby,
    throttle: Option<Throttle>,
    pub(crate) failures: FailureSettings,
    pub(crate) report: StateReport,
    kept: KeptDocuments<P>,
    inline: Inline<P>,
}

impl<P: Projection> Projector<P> {
    /// How many bytes of documents are loaded for one commit, and about how many it writes, by default.
    pub const DEFAULT_DOCUMENT_BYTES: usize = 32 * 1024 * 1024;

    /// The largest number of bytes of documents in one commit, for any setting: Postgres takes no message of 1 GiB, and
    /// `SQLite` no value of 1 GB.
    pub const MAX_DOCUMENT_BYTES: usize = 512 * 1024 * 1024;

    /// An event may touch documents of this many times [`document_bytes`](Self::document_bytes).
    const ONE_EVENT: usize = 8;

    /// Folds the events of `source` through `projection` into `store`.
    pub fn new(projection: P, source: impl EventSource, store: impl ReadModelStore) -> Self {
        const { assert!(definition::is_name(P::NAME), "Projection::NAME must be 1 to 64 bytes of a-z, 0-9 and '-'") }
        let (standby, report) = (Standby::default(), StateReport::default());
        Self {
            projection,
            source: Arc::new(source),
            store: Arc::new(store),
            lease: DEFAULT_LEASE,
            shards: 1,
            document_bytes: Self::DEFAULT_DOCUMENT_BYTES,
            standby,
            throttle: None,
            failures: FailureSettings::default(),
            report,
            kept: KeptDocuments::default(),
            inline: Inline::default(),
        }
    }

    /// What its generations are known by.
    pub(crate) fn subject() -> Subject {
        Subject::of::<P>()
    }

    /// How long the leases of a worker last after its process was killed or stalls (2 s by default). A worker that stops in good
    /// order releases them at once. On a file (`es-sqlite`) those of a killed process are free at once too.
    ///
    /// While a worker lives its leases are renewed, for any length of a call of [`Projection::fold`] and on any runtime. A process
    /// that stalls for longer than half of `ttl` may lose a shard to one that waits. Its commit is then refused, so nothing is
    /// folded twice, but the work is done again.
    pub fn lease(self, ttl: Duration) -> Self {
        Self { lease: ttl, ..self }
    }

    /// In how many shards it follows the log (one by default). Each key belongs to one of them by its hash. Each shard has a
    /// checkpoint and a lease of its own and is folded in log order, so several processes fold the read model at once: they share
    /// the shards evenly, and take over those of a process that ends.
    ///
    /// Each shard reads the whole log. In [per-stream order](EventOrder::PerStream) it decodes only its own events, otherwise all
    /// of them, to learn their keys. Kafka has partitions, and keeps these.
    ///
    /// A read model with [unique](crate::Field::unique) fields has one shard, also from Kafka: it gets the events in log order.
    ///
    /// All processes give the same number. Another one begins when all processes with the former one have ended, and where the
    /// former shards have stopped: they must have reached the same position, as they do when all is read. Otherwise the projector
    /// stops with [`EngineError::OtherSource`] ([`EngineError::ParkedKeys`] if keys are parked). A [rebuild](Self::rebuild) or a
    /// higher [`Projection::VERSION`] begins with any number.
    pub fn shards(self, shards: u32) -> Self {
        Self { shards: shards.max(1), ..self }
    }

    /// How many bytes of documents are loaded for one commit (32 MiB by default). In memory they take a few times as much (R17).
    /// A batch that touches more is committed in parts. About as much of what was committed last is kept in memory, so that it need
    /// not be loaded for the next events.
    ///
    /// While a read model is built, its documents may take eight times as many bytes in memory, and at most half of that is written
    /// at once.
    ///
    /// A single event cannot be split. It may touch documents of eight times as many bytes, before and after it, but
    /// never of more than [`MAX_DOCUMENT_BYTES`](Self::MAX_DOCUMENT_BYTES). An event that touches more stops the projector with
    /// [`EngineError::TooLarge`].
    pub fn document_bytes(self, bytes: usize) -> Self {
        Self { document_bytes: bytes.clamp(1, Self::MAX_DOCUMENT_BYTES), ..self }
    }

    pub(crate) fn most_document_bytes(&self) -> usize {
        self.document_bytes.saturating_mul(Self::ONE_EVENT).min(Self::MAX_DOCUMENT_BYTES)
    }

    /// How often it tries again while it [stands by](WorkerState::StandingBy) (every 5 s by default).
    pub fn standby(self, retry: Duration) -> Self {
        Self { standby: Standby { retry, ..self.standby }, ..self }
    }

    /// How long it [stands by](WorkerState::StandingBy) at one event that this program does not know (15 min by default;
    /// [`Duration::MAX`] means no limit). If the event was not passed by then, the next try ends with
    /// [`EngineError::NeverKnown`]. A process that is started again waits for the whole time again.
    pub fn standby_limit(self, limit: Duration) -> Self {
        Self { standby: Standby { limit, ..self.standby }, ..self }
    }

    /// Builds give way to appends: those of [`run`](Self::run), for a read model that does not serve yet or has a newer
    /// [`Projection::VERSION`], and those of [`rebuild`](Self::rebuild). A read model that serves is followed at full pace.
    pub fn throttle(self, throttle: Throttle) -> Self {
        Self { throttle: Some(throttle), ..self }
    }

    /// What builds read.
    pub(crate) fn building_source(&self) -> Arc<dyn EventSource> {
        throttled(self.throttle.as_ref(), &self.source)
    }

    /// What it does when it cannot fold an event ([stops](FailurePolicy::stop) by default).
    pub fn on_failure(mut self, policy: FailurePolicy) -> Self {
        self.failures.policy = policy;
        self
    }

    /// How many dead letters the read model may have (1,000 by default). At one more the projector stops with
    /// [`EngineError::TooManyLetters`]. Workers of several shards count each other's letters when they take a shard, so together
    /// they may exceed it.
    pub fn most_letters(mut self, letters: usize) -> Self {
        self.failures.most_letters = letters;
        self
    }

    /// How long a fold of one event into one document may take (any time by default). A longer one is a failure
    /// ([`EngineError::TooSlow`]), for which the [`FailurePolicy`] decides.
    ///
    /// It is measured after the fold has returned, since a synchronous function cannot be interrupted. While it runs, the
    /// [status](crate::Service::status) of a service tells for how long.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.failures.time_limit = limit;
        self
    }

    /// What [`run`](Self::run) is doing; the receiver sees each change.
    pub fn state(&self) -> watch::Receiver<WorkerState> {
        self.report.watch()
    }

    /// Runs until `shutdown`. It retries when the store or the source fails.
    ///
    /// A read model that does not serve yet is built first, and serves when it has reached the end of the source. If an older
    /// [`Projection::VERSION`] serves, the new one is built meanwhile and then replaces it.
    ///
    /// If only newer code can continue, because a newer version serves or an event has a name or schema version that this
    /// program does not know, it [stands by](WorkerState::StandingBy): it releases its leases and tries again every 5 s. So a
    /// rolling deploy stops no process, also when it is rolled back. The checkpoint never passes such an event (R11). Perhaps no
    /// program knows the event, so the projector stops with [`EngineError::NeverKnown`] when it has stood by at one event for
    /// [`standby_limit`](Self::standby_limit).
    ///
    /// # Errors
    /// A permanent error stops the projector at the event that it concerns (R11): the events before it
    /// are folded and committed, it and those after it are not. With another [`FailurePolicy`] it may try the event again, or
    /// park it.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the read model as of the last commit, and its leases expire. Prefer `shutdown`, which releases
    /// them.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), EngineError> {
        self.standby.run(P::NAME, &self.report, &self.failures, &shutdown, || Box::pin(self.serve(&shutdown))).await
    }

    async fn serve(&self, shutdown: &CancellationToken) -> Result<Option<()>, EngineError> {
        if let Some(log) = self.inline_log() {
            return self.attend(log, shutdown).await;
        }
        if let Some(pause) = self.store.paused(P::NAME).await? {
            return Err(EngineError::Paused(pause));
        }
        let candidate = &Candidate::find(&*self.store, &Self::subject()).await?;
        let opened = Instant::now();
        let report = |step| {
            if self.standby.is_over(step, opened.elapsed()) {
                self.report.set(P::NAME, WorkerState::Working);
            }
        };
        if !candidate.serves() && self.build(&*self.building_source(), candidate, shutdown, report).await?.is_none() {
            return Ok(None);
        }
        let worker = self.worker(self, &*self.source, &candidate.generation.reader).await?;
        let steps = worker.run(shutdown, |step| {
            Box::pin(async move {
                candidate.after(step).await?;
                report(step);
                Ok(ControlFlow::Continue(()))
            })
        });
        steps.await
    }

    /// Whether it can run as it is set up.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        let is_of_one = matches!(P::Event::categories(), Categories::Only(names) if names.len() == 1);
        if P::ORDER == EventOrder::PerStream && !is_of_one {
            return Err(EngineError::NotPerStream);
        }
        if self.failures.policy.forwards() {
            return Err(SourceError::CannotForward.into());
        }
        if self.shards > 1 && UniqueValues::are_declared::<P>() { Err(EngineError::UniqueInShards) } else { Ok(()) }
    }

    pub(crate) async fn worker<'a>(
        &'a self,
        handler: &'a dyn Handler,
        source: &dyn EventSource,
        reader: &Reader,
    ) -> Result<Worker<'a>, EngineError> {
        self.check()?;
        let subscription = Subscription {
            // Each generation is a reader of its own, so that a rebuild takes no shard from the
            // workers that serve.
            reader: format!("{}-g{}", P::NAME, reader.id),
            store: self.store.id().await?,
            categories: P::Event::categories(),
            // One document may get the value that another one has lost before.
            order: if UniqueValues::are_declared::<P>() { EventOrder::PerKey } else { P::ORDER },
            split: Split { shards: self.shards, by_stream: P::ORDER == EventOrder::PerStream },
            forwards: false,
        };
        Worker::open(handler, source, &subscription, self.store.clone(), reader.clone(), self.lease).await
    }
}

/// The checked keys of the documents that `event` touches, without duplicates: a document that is named twice must not see the
/// event twice (R9).
pub(crate) fn keys<P: Projection>(projection: &P, event: &Recorded<P::Event>) -> Result<Vec<String>, EngineError> {
    let mut keys = projection.keys(event).into_vec();
    keys.sort_unstable();
    keys.dedup();
    for key in &keys {
        let allowed = P::ORDER == EventOrder::PerKey || key == event.stream.id();
        if !is_key(key) || !allowed {
            return Err(EngineError::Key { key: key.clone(), event: Location::of(event) });
        }
    }
    Ok(keys)
}

/// Whether `key` may be that of a document.
pub(crate) fn is_key(key: &str) -> bool {
    !key.is_empty() && key.len() <= MAX_KEY_BYTES && !has_control(key)
}

/// Folds `event` into the document under `key`.
pub(crate) fn fold<P: Projection>(
    projection: &P,
    key: &str,
    document: &mut Option<P::Document>,
    event: &Recorded<P::Event>,
) -> Result<(), EngineError> {
    projection.fold_keyed(key, document, event).map_err(|reason| EngineError::Unfoldable {
        key: key.to_owned(),
        event: Location::of(event),
        reason,
    })
}

/// What is stored of the document under `key`.
pub(crate) fn encode<P: Projection>(key: &str, document: &P::Document) -> Result<Bytes, EngineError> {
    codec::encode(P::NAME, document).map_err(|reason| EngineError::Unwritable {
        projection: P::NAME,
        key: key.to_owned(),
        reason,
    })
}

/// The values of the fields of the document under `key`; without a document it has none.
pub(crate) fn fields<P: Projection>(
    key: &str,
    document: Option<&P::Document>,
) -> Result<Vec<FieldChange>, EngineError> {
    let change = |field: &&dyn DocumentField<P::Document>| {
        let value = document.and_then(|document| field.value(document));
        if let Some(value) = &value {
            value.check().map_err(|reason| EngineError::FieldValue {
                projection: P::NAME,
                key: key.to_owned(),
                field: field.name(),
                reason,
            })?;
        }
        Ok(FieldChange {
            key: key.to_owned(),
            field: field.name(),
            is_unique: field.is_unique(),
            value,
            passed: Vec::new(),
        })
    };
    P::FIELDS.iter().map(change).collect()
}
