//! The thread that owns the transactional producer, since every call of it may block.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

use chrono::DateTime;
use es_core::{Position, RecordedEvent};
use rdkafka::{
    ClientContext, Message,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    client,
    failure::RelayError,
    offsets::{Offsets, PerPartition},
    orphan, partitioner,
    progress::{self, Progress, ProgressError},
    record,
    refusal::Refusal,
    relay::{RelayConfig, Step, StepHook},
    topics::Topics,
    verify,
};

/// How long one step of a transaction may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an open transaction may still take once the shutdown is asked for (R16).
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
const INIT_SLICE: Duration = Duration::from_secs(10);
const COMMIT_SLICE: Duration = Duration::from_secs(2);
/// The delivery opaque of the progress record; events have their index in the batch.
const PROGRESS: usize = usize::MAX;

/// Why a transaction did not happen. After any of these the producer is spent.
#[derive(Debug)]
pub(crate) enum PublishError {
    /// Another producer has taken the transactional id.
    Fenced,
    /// An event is too large. Which one is known when the client finds it, or when the transaction
    /// has but one: the broker judges whole batches.
    TooLarge { index: Option<usize> },
    /// The topics are not as the relay left them: an operator has to act.
    Stopped(Box<RelayError>),
    /// The progress record cannot be read.
    Progress { offset: i64, reason: String },
    /// Kafka or its client failed.
    Kafka(KafkaError),
    /// The thread is gone.
    Gone,
}

/// The async side of the thread.
#[derive(Debug)]
pub(crate) struct Publisher {
    jobs: mpsc::Sender<Job>,
    ended: oneshot::Receiver<()>,
}

struct Job {
    events: Vec<RecordedEvent>,
    head: Position,
    reply: oneshot::Sender<Result<Progress, PublishError>>,
}

impl Publisher {
    /// Fences every other producer of this name, then tells how far it had come.
    pub(crate) async fn open(
        config: &Arc<RelayConfig>,
        hook: Option<StepHook>,
        shutdown: &CancellationToken,
    ) -> Result<(Self, Option<Progress>), PublishError> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (opened, resumed) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        let (config, shutdown) = (config.clone(), shutdown.clone());
        std::thread::Builder::new()
            .name(format!("relay-{}", config.name))
            .spawn(move || {
                // Dropped last, after the producer.
                let _ending: oneshot::Sender<()> = ending;
                let mut transactions = match Transactions::open(config, hook, shutdown) {
                    Ok(transactions) => transactions,
                    Err(error) => {
                        _ = opened.send(Err(error));
                        return;
                    }
                };
                if opened.send(Ok(transactions.progress.clone())).is_err() {
                    return;
                }
                while let Ok(Job { events, head, reply }) = inbox.recv() {
                    let outcome = transactions.publish(&events, head);
                    let failed = outcome.is_err();
                    _ = reply.send(outcome);
                    if failed {
                        return;
                    }
                }
            })
            .map_err(|error| {
                tracing::warn!(%error, "the producer's thread cannot be started");
                PublishError::Kafka(KafkaError::Global(RDKafkaErrorCode::CriticalSystemResource))
            })?;
        let progress = resumed.await.map_err(|_| PublishError::Gone)??;
        Ok((Self { jobs, ended }, progress))
    }

    /// Publishes `events` and that the log ends at `head` in one transaction. After an error the publisher is
    /// spent.
    ///
    /// # Cancel safety
    /// Dropping the future leaves either nothing or the whole: the thread finishes the transaction.
    pub(crate) async fn publish(&self, events: Vec<RecordedEvent>, head: Position) -> Result<Progress, PublishError> {
        let (reply, outcome) = oneshot::channel();
        self.jobs.send(Job { events, head, reply }).map_err(|_| PublishError::Gone)?;
        outcome.await.map_err(|_| PublishError::Gone)?
    }

    /// Returns when the producer is closed, or after a while.
    pub(crate) async fn close(self) {
        drop(self.jobs);
        _ = tokio::time::timeout(SHUTDOWN_GRACE, self.ended).await;
    }
}

/// What delivery reports have said about the open transaction.
#[derive(Debug, Default)]
struct Reports {
    confirmed: usize,
    next: Offsets,
    failed: Option<(usize, KafkaError)>,
    /// The brokers' refusal of this client, which they tell on the side.
    denied: Option<KafkaError>,
    rewound: Option<Rewound>,
}

/// A partition that is shorter than what was published to it.
#[derive(Debug)]
struct Rewound {
    topic: String,
    partition: i32,
    known: i64,
    found: i64,
}

impl Reports {
    fn confirm(&mut self, index: usize, topic: &str, partition: i32, offset: i64) {
        if offset < 0 {
            // Written, but nobody knows where, for example since the broker took it for a repetition.
            // The progress could not speak of it: the transaction is tried again.
            return self.fail(index, KafkaError::MessageProduction(RDKafkaErrorCode::Fail));
        }
        self.confirmed += 1;
        if index == PROGRESS {
            return;
        }
        let known = self.next.next(topic, partition);
        if offset < known {
            // The topic was deleted and created anew, or the progress is another cluster's.
            let topic = topic.to_owned();
            self.rewound.get_or_insert(Rewound { topic, partition, known, found: offset });
        }
        self.next.advance(topic, partition, offset + 1);
    }

    fn fail(&mut self, index: usize, error: KafkaError) {
        if self.failed.as_ref().is_none_or(|(earlier, _)| index < *earlier) {
            self.failed = Some((index, error));
        }
    }
}

#[derive(Debug, Default)]
struct Deliveries(Mutex<Reports>);

impl Deliveries {
    fn reports(&self) -> std::sync::MutexGuard<'_, Reports> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        client::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::report(&error, reason);
        if Refusal::of(error.clone()).is_ok() {
            self.reports().denied = Some(error);
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let mut reports = self.reports();
        match result {
            Ok(record) => reports.confirm(index, record.topic(), record.partition(), record.offset()),
            Err((error, _)) => reports.fail(index, error.clone()),
        }
    }
}

struct Transactions {
    producer: BaseProducer<Deliveries>,
    config: Arc<RelayConfig>,
    hook: Option<StepHook>,
    shutdown: CancellationToken,
    topics: Topics,
    progress: Option<Progress>,
}

impl Transactions {
    fn open(
        config: Arc<RelayConfig>,
        hook: Option<StepHook>,
        shutdown: CancellationToken,
    ) -> Result<Self, PublishError> {
        let topics = Topics::new(&config.topic_prefix);
        let producer: BaseProducer<Deliveries> =
            producer_config(&config).create_with_context(Deliveries::default()).map_err(PublishError::Kafka)?;
        init(&producer, &shutdown)?;
        let consumer = client::consumer(&config.brokers, &config.transactional_id(), &config.settings);
        let progress =
            progress::read_last(&consumer, &topics.progress(), &config.name, PATIENCE).map_err(
                |error| match error {
                    ProgressError::Kafka(error) => PublishError::Kafka(error),
                    ProgressError::Damaged { offset, reason } => PublishError::Progress { offset, reason },
                },
            )?;
        if let Some(progress) = progress.as_ref().filter(|progress| progress.position > Position::ZERO) {
            let refusal = verify::refusal(&consumer, progress, &topics.progress(), PATIENCE);
            if let Some(refusal) = refusal.map_err(PublishError::Kafka)? {
                return Err(stopped(refusal));
            }
            producer.context().reports().next = progress.offsets.clone();
        } else if let Some((topic, partition)) =
            orphan::find(&consumer, &topics, PATIENCE).map_err(PublishError::Kafka)?
        {
            let (name, progress) = (config.name.clone(), topics.progress());
            return Err(stopped(RelayError::NoProgress { name, topic, partition, progress }));
        }
        Ok(Self { producer, config, hook, shutdown, topics, progress })
    }

    /// The progress that the next transaction makes: so far, what was published before it.
    fn begun(&self) -> Progress {
        self.progress.clone().unwrap_or_else(|| Progress {
            incarnation: Uuid::now_v7(),
            position: Position::ZERO,
            head: Position::ZERO,
            event_id: Uuid::nil(),
            recorded_at: DateTime::UNIX_EPOCH,
            offsets: Offsets::default(),
            positions: PerPartition::default(),
            partitions: BTreeMap::new(),
        })
    }

    /// One transaction: the events, their deliveries awaited, then the progress that they amount to.
    fn publish(&mut self, events: &[RecordedEvent], head: Position) -> Result<Progress, PublishError> {
        let outcome = self.transaction(events, head);
        match &outcome {
            Ok(progress) => self.progress = Some(progress.clone()),
            // A crash leaves the transaction open, as a real one would.
            Err(PublishError::Fenced | PublishError::Gone) => {}
            // Best effort: the next producer of this name aborts it otherwise.
            Err(_) => _ = self.producer.abort_transaction(SHUTDOWN_GRACE),
        }
        outcome
    }

    fn transaction(&mut self, events: &[RecordedEvent], head: Position) -> Result<Progress, PublishError> {
        self.producer.begin_transaction().map_err(|error| self.classify(error))?;
        self.producer.context().reports().confirmed = 0;
        let mut progress = self.begun();
        for (index, event) in events.iter().enumerate() {
            self.send(event, index, &mut progress)?;
        }
        // What the relay says when it starts has no steps at which a test could end it.
        let step = |step| if events.is_empty() { Ok(()) } else { self.step(step) };
        step(Step::Sent)?;
        self.settle(events.len())?;

        progress.offsets = self.producer.context().reports().next.clone();
        if let Some(last) = events.last() {
            (progress.position, progress.event_id, progress.recorded_at) = (last.position, last.id, last.recorded_at);
        }
        progress.head = head.max(progress.position);
        step(Step::BeforeProgress)?;
        let (topic, value) = (self.topics.progress(), progress.encode());
        self.enqueue(|| {
            BaseRecord::with_opaque_to(&topic, PROGRESS)
                .partition(0)
                .key(self.config.name.as_str())
                .payload(value.as_slice())
        })?;
        self.settle(events.len() + 1)?;

        step(Step::BeforeCommit)?;
        self.commit()?;
        step(Step::Committed)?;
        Ok(progress)
    }

    fn send(&self, event: &RecordedEvent, index: usize, progress: &mut Progress) -> Result<(), PublishError> {
        let topic = self.topics.events(event.stream.category());
        let count = match progress.partitions.get(&topic) {
            Some(count) => *count,
            None => self.count(&topic)?,
        };
        let partition = partitioner::partition(event.stream.as_str().as_bytes(), count);
        let previous = progress.positions.set(&topic, partition, event.position).unwrap_or_default();
        self.enqueue(|| {
            BaseRecord::with_opaque_to(&topic, index)
                .partition(partition)
                .key(event.stream.as_str())
                .payload(event.data.payload.as_ref())
                .headers(record::headers(event, &self.config.source, previous))
        })?;
        progress.partitions.entry(topic).or_insert(count);
        Ok(())
    }

    /// How many partitions a topic has whose first event is about to be published.
    fn count(&self, topic: &str) -> Result<i32, PublishError> {
        let mut patience = Patience::new();
        loop {
            let found = self.producer.client().fetch_metadata(Some(topic), PATIENCE);
            let metadata = found.map_err(PublishError::Kafka)?;
            match metadata.topics().iter().find(|found| found.name() == topic).map(|found| found.partitions().len()) {
                Some(count @ 1..) => return Ok(i32::try_from(count).unwrap_or(i32::MAX)),
                // Not every broker knows a new topic at once.
                _ if !patience.is_over(&self.shutdown) => std::thread::sleep(Duration::from_millis(50)),
                _ => {
                    let unknown = RDKafkaErrorCode::UnknownTopicOrPartition;
                    return Err(PublishError::Kafka(KafkaError::MetadataFetch(unknown)));
                }
            }
        }
    }

    /// Puts a record into the producer's queue; a full queue is waited for (R17).
    fn enqueue<'a>(&self, record: impl Fn() -> BaseRecord<'a, str, [u8], usize>) -> Result<(), PublishError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.producer.send(record()) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) if Instant::now() < deadline => {
                    self.producer.poll(Duration::from_millis(5));
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), record)) => {
                    return Err(PublishError::TooLarge { index: Some(record.delivery_opaque) });
                }
                Err((error, _)) => return Err(self.classify(error)),
            }
        }
    }

    /// Waits for the delivery reports of all records of the transaction, of which there must be
    /// `expected`. Only then may it be committed: `commit_transaction` itself waits in steps of
    /// 100 ms while anything is in flight.
    fn settle(&self, expected: usize) -> Result<(), PublishError> {
        let mut patience = Patience::new();
        while self.producer.in_flight_count() > 0 {
            // Without time to wait it only ends the lingering.
            _ = self.producer.flush(Duration::ZERO);
            self.producer.poll(Duration::from_micros(500));
            if patience.is_over(&self.shutdown) {
                return Err(PublishError::Kafka(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)));
            }
        }
        let mut reports = self.producer.context().reports();
        if let Some(Rewound { topic, partition, known, found }) = reports.rewound.take() {
            let (found, progress) = (format!("the next event got offset {found}"), self.topics.progress());
            return Err(stopped(RelayError::Rewound { topic, partition, known, found, progress }));
        }
        if let Some((index, error)) = reports.failed.take() {
            drop(reports);
            if index != PROGRESS && error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
                return Err(PublishError::TooLarge { index: (expected == 1).then_some(index) });
            }
            return Err(self.classify(error));
        }
        if reports.confirmed == expected { Ok(()) } else { Err(PublishError::Kafka(KafkaError::Canceled)) }
    }

    fn commit(&self) -> Result<(), PublishError> {
        let mut patience = Patience::new();
        loop {
            // In slices: a commit that timed out may be called again and goes on where it was.
            match self.producer.commit_transaction(COMMIT_SLICE) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(error)) if error.is_retriable() && !patience.is_over(&self.shutdown) => {}
                // Whether it is committed is unknown; the next producer learns it from the progress.
                Err(error) => return Err(self.classify(error)),
            }
        }
    }

    fn step(&self, step: Step) -> Result<(), PublishError> {
        match self.hook.as_ref().map(|StepHook(hook)| hook(step)) {
            Some(ControlFlow::Break(())) => Err(PublishError::Gone),
            _ => Ok(()),
        }
    }

    fn classify(&self, error: KafkaError) -> PublishError {
        classify(&self.producer, error)
    }
}

/// Time that gets shorter when the shutdown is asked for.
struct Patience {
    deadline: Instant,
    hurried: bool,
}

impl Patience {
    fn new() -> Self {
        Self { deadline: Instant::now() + PATIENCE, hurried: false }
    }

    fn is_over(&mut self, shutdown: &CancellationToken) -> bool {
        let now = Instant::now();
        if !self.hurried && shutdown.is_cancelled() {
            self.hurried = true;
            self.deadline = self.deadline.min(now + SHUTDOWN_GRACE);
        }
        now >= self.deadline
    }
}

fn stopped(refusal: RelayError) -> PublishError {
    PublishError::Stopped(Box::new(refusal))
}

fn classify(producer: &BaseProducer<Deliveries>, error: KafkaError) -> PublishError {
    use RDKafkaErrorCode as Code;
    // The first fatal error is the cause of all later ones.
    let error = match producer.client().fatal_error() {
        Some((code, _)) => KafkaError::Global(code),
        None => error,
    };
    match error.rdkafka_error_code() {
        Some(Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch) => PublishError::Fenced,
        _ => PublishError::Kafka(error),
    }
}

/// Fences every other producer of this name. In slices: what timed out goes on where it was when it is called again,
/// unless the brokers refuse this client.
fn init(producer: &BaseProducer<Deliveries>, shutdown: &CancellationToken) -> Result<(), PublishError> {
    let mut patience = Patience::new();
    loop {
        let Err(error) = producer.init_transactions(INIT_SLICE) else { return Ok(()) };
        if let Some(denied) = denied(producer) {
            return Err(denied);
        }
        let is_retriable = matches!(&error, KafkaError::Transaction(error) if error.is_retriable());
        if !is_retriable || patience.is_over(shutdown) {
            return Err(classify(producer, error));
        }
    }
}

/// Credentials that the brokers refuse show up as a time-out, and only on the side as what they are.
fn denied(producer: &BaseProducer<Deliveries>) -> Option<PublishError> {
    let asked = Instant::now();
    // One poll may do no more than the client's own work.
    while asked.elapsed() < Duration::from_millis(200) && producer.context().reports().denied.is_none() {
        producer.poll(Duration::from_millis(10));
    }
    producer.context().reports().denied.take().map(PublishError::Kafka)
}

fn producer_config(config: &RelayConfig) -> rdkafka::ClientConfig {
    let id = config.transactional_id();
    let tuning = [
        ("linger.ms", "5"),
        ("compression.type", "lz4"),
        ("queue.buffering.max.messages", "100000"),
        ("queue.buffering.max.kbytes", "65536"),
        ("message.max.bytes", "1048576"),
        ("transaction.timeout.ms", "60000"),
        ("topic.metadata.refresh.interval.ms", "5000"),
    ];
    let invariants = [("transactional.id", id.as_str()), ("enable.idempotence", "true"), ("acks", "all")];
    client::layered(&config.brokers, &tuning, &config.settings, &invariants)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r10_a_record_at_an_unknown_offset_is_a_failure_and_not_a_rewound_partition() {
        let mut reports = Reports::default();
        reports.confirm(0, "order-events", 0, 7);
        reports.confirm(1, "order-events", 0, -1001);
        assert!(reports.rewound.is_none() && matches!(reports.failed, Some((1, _))), "{reports:?}");
        assert_eq!((reports.confirmed, reports.next.next("order-events", 0)), (1, 8));
        reports.confirm(2, "order-events", 0, 3);
        assert!(matches!(reports.rewound, Some(Rewound { known: 8, found: 3, .. })), "{reports:?}");
    }
}
