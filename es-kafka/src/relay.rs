//! The relay: carries the log to Kafka. The log itself is the outbox.

use std::{
    collections::VecDeque,
    fmt,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use es_core::{EventStore, Position, ReadError, RecordedEvent, StateReport, Witness, WorkerState, error::BoxError};
use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    client::{self, Quiet, Settings},
    create::TopicMaker,
    failure::{Failure, Fenced, RelayError, Suspect},
    follower,
    pace::Pace,
    progress::Progress,
    publisher::{PublishError, Publisher},
    standby::Standby,
    topics::Topics,
};

/// Where a relay publishes to, and under which name.
///
/// ```
/// use es_kafka::RelayConfig;
///
/// let config = RelayConfig { partitions: 6, ..RelayConfig::new("127.0.0.1:9092", "orders") };
/// assert_eq!(config.topic_prefix, "");
/// ```
#[derive(Debug, Clone)]
pub struct RelayConfig {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// The relay's stable name. Of two relays of one name and prefix one publishes and the other stands by
    /// ([`Relay::run`]); two names under one prefix would publish everything twice.
    pub name: String,
    /// What the names of all topics start with, and the transactional id too; it ends in `.` or `-`, or
    /// gets a dot ([`Topics`]).
    pub topic_prefix: String,
    /// The `ce_source` of the events: who writes them, as a URI reference.
    pub source: String,
    /// How many partitions a topic of events gets. Never change the number of a topic in use: its
    /// keys would move, and with them their order.
    pub partitions: i32,
    /// How many brokers hold each partition; -1 is the cluster's default.
    pub replication: i32,
    /// Whether missing topics are created.
    pub create_topics: bool,
    /// The most events of one transaction.
    pub batch_events: usize,
    /// The most payload of one transaction, in bytes; a single event may be larger.
    pub batch_bytes: usize,
    /// Further properties of librdkafka, for example for TLS and SASL.
    pub settings: Settings,
}

impl RelayConfig {
    /// A relay `name` with three partitions a topic, the cluster's replication and no prefix.
    pub fn new(brokers: impl Into<String>, name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            brokers: brokers.into(),
            source: format!("/{name}"),
            name,
            topic_prefix: String::new(),
            partitions: 3,
            replication: -1,
            create_topics: true,
            batch_events: 2_000,
            batch_bytes: 8 * 1024 * 1024,
            settings: Settings::new(),
        }
    }

    /// No topic has a slash in its name: so that of two relays with prefixes and names that run into each
    /// other to the same text, neither fences the other.
    pub(crate) fn transactional_id(&self) -> String {
        format!("{}/{}", Topics::new(&self.topic_prefix).progress(), self.name)
    }
}

/// Where a transaction stands, for tests that end a relay there.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The events are in the producer's queue.
    Sent,
    /// The events are in Kafka, uncommitted.
    BeforeProgress,
    /// The progress is in Kafka too, uncommitted.
    BeforeCommit,
    /// The transaction is committed, and the relay does not know it yet.
    Committed,
}

#[derive(Clone)]
pub(crate) struct StepHook(pub(crate) Arc<dyn Fn(Step) -> ControlFlow<()> + Send + Sync>);

/// Carries the log of a store to Kafka.
///
/// # Delivery
/// Every event reaches its topic once for `read_committed` readers, in version order for each
/// stream (R10). Events and the relay's own progress commit in one Kafka transaction, so a crash
/// leaves both or neither, and a restart goes on exactly behind the last one.
///
/// # Panics
/// Its futures panic outside of a tokio runtime with time enabled.
pub struct Relay {
    store: Arc<dyn EventStore>,
    config: Arc<RelayConfig>,
    hook: Option<StepHook>,
    published: watch::Sender<Position>,
    report: StateReport,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Relay {
    /// A relay of the log of `store`.
    pub fn new(store: impl EventStore, config: RelayConfig) -> Self {
        Self {
            store: Arc::new(store),
            config: Arc::new(config),
            hook: None,
            published: watch::Sender::new(Position::ZERO),
            report: StateReport::default(),
        }
    }

    /// Calls `hook` at every step of every transaction; `Break` ends the relay there as a crash
    /// would: the transaction stays open.
    #[doc(hidden)]
    pub fn at_each_step(self, hook: impl Fn(Step) -> ControlFlow<()> + Send + Sync + 'static) -> Self {
        Self { hook: Some(StepHook(Arc::new(hook))), ..self }
    }

    /// Follows how far the relay has come.
    pub fn published(&self) -> watch::Receiver<Position> {
        self.published.subscribe()
    }

    /// Follows whether the relay publishes, stands by because another one of its name does, or has stopped.
    pub fn state(&self) -> watch::Receiver<WorkerState> {
        self.report.watch()
    }

    /// Publishes until `shutdown`; then it finishes the open transaction, or aborts it when Kafka does
    /// not answer within seconds, and returns (R16). What is transient (a broker or the store away) it waits out.
    ///
    /// # Cancel safety
    /// Dropping the future loses and repeats nothing: a transaction in flight is finished whole in
    /// the background, or aborted by the next relay of this name.
    ///
    /// # Standby
    /// Of several relays of one name the one that started last publishes; the others stand by
    /// ([`state`](Self::state)). One that stands by looks at log and progress twice a second, and takes over when there
    /// has been news for three seconds and the other one has published none of it: after a `kill -9` events are in Kafka
    /// again within some five seconds (R18: ten, with their readers). Takeovers that bring
    /// no progress are each followed by twice the time, so that two relays do not fence each other for ever.
    ///
    /// # Errors
    /// [`RelayError`]: waiting does not mend it, and each variant says what does.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), RelayError> {
        self.report.set(&self.config.name, WorkerState::Working);
        let ended = self.publish_or_stand_by(shutdown).await;
        if let Err(error) = &ended {
            self.report.set(&self.config.name, WorkerState::stopped(error));
        }
        ended
    }

    async fn publish_or_stand_by(&self, shutdown: CancellationToken) -> Result<(), RelayError> {
        let mut pace = Pace::new(self.config.batch_events);
        let mut standby = Standby::new();
        let mut missing_since = None;
        let mut failures = 0;
        loop {
            let before = *self.published.borrow();
            let failure = match self.session(&mut pace, &shutdown).await {
                Ok(()) => return Ok(()),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Again) => continue,
                Err(Failure::Fenced) => {
                    let fenced = Fenced { name: self.config.name.clone() };
                    self.report.set(&self.config.name, WorkerState::standing_by(&fenced));
                    if !standby.wait(&self.store, &self.config, &shutdown).await {
                        return Ok(());
                    }
                    self.report.set(&self.config.name, WorkerState::Working);
                    continue;
                }
                Err(Failure::Missing(error)) => self.missing(error, &mut missing_since)?,
                Err(Failure::Transient(error)) => {
                    missing_since = None;
                    error
                }
            };
            failures = if *self.published.borrow() > before { 0 } else { failures + 1 };
            let pause = back_off(failures);
            tracing::warn!(
                relay = self.config.name,
                error = &*failure as &dyn std::error::Error,
                ?pause,
                "relay starts again"
            );
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// A topic that is missing may be too new for the broker that was asked. One that is still missing after a while,
    /// and that this relay may not create, waits for an operator.
    fn missing(&self, error: KafkaError, since: &mut Option<Instant>) -> Result<BoxError, RelayError> {
        let since = *since.get_or_insert_with(Instant::now);
        if self.config.create_topics || since.elapsed() < MISSING {
            return Ok(error.into());
        }
        let remedy = "create the topic, or let the relay do so with `create_topics`".to_owned();
        Err(RelayError::Refused { remedy, source: error })
    }

    /// From one producer's birth to its end.
    async fn session(&self, pace: &mut Pace, shutdown: &CancellationToken) -> Result<(), Failure> {
        // A relay that cannot read its log must not fence one that can.
        let Some(head) = shutdown.run_until_cancelled(self.store.head()).await else { return Ok(()) };
        let mut head = head.map_err(Failure::read)?;
        let Some(opened) = shutdown.run_until_cancelled(self.open(shutdown)).await else { return Ok(()) };
        let (mut maker, publisher, mut last, told) = opened?;
        tracing::info!(relay = self.config.name, position = %last, %head, "relay publishes");
        if told.is_none_or(|told| told < head) {
            // A read model that is built meanwhile must not take what is in Kafka for the whole log.
            publisher.publish(Vec::new(), head).await.map_err(Failure::publish)?;
        }
        let mut pending = VecDeque::new();
        loop {
            if pending.is_empty() {
                let Some(read) = shutdown.run_until_cancelled(self.read(last, pace)).await else { break };
                (pending, head) = read?;
            }
            if pending.is_empty() {
                let Some(waited) = shutdown.run_until_cancelled(self.store.wait_past(last)).await else { break };
                waited.map_err(Failure::read)?;
                continue;
            }
            let batch = self.cut(&mut pending, pace);
            let Some(end) = batch.last().map(|event| event.position) else { continue };
            let Some(made) = shutdown.run_until_cancelled(self.ensure_topics(&mut maker, &batch)).await else { break };
            made?;
            let suspects: Vec<_> = batch.iter().map(Suspect::of).collect();
            // While Kafka works on this transaction, the store reads the next one.
            let read_ahead = async { if pending.is_empty() { self.read(end, pace).await.map(Some) } else { Ok(None) } };
            let (outcome, ahead) = tokio::join!(publisher.publish(batch, head), read_ahead);
            match outcome {
                Ok(progress) => last = progress.position,
                Err(PublishError::TooLarge { index: Some(index) }) if index < suspects.len() => {
                    return Err(Failure::Final(suspects[index].too_large()));
                }
                Err(PublishError::TooLarge { .. }) => {
                    // The broker refused a batch as a whole: find the culprit by halves.
                    pace.slow_down(suspects.len() / 2, end);
                    return Err(Failure::Again);
                }
                Err(error) => return Err(Failure::publish(error)),
            }
            pace.passed(last);
            self.published.send_replace(last);
            match ahead {
                Ok(Some(read)) => (pending, head) = read,
                Ok(None) => {}
                Err(error) => return Err(error),
            }
            if shutdown.is_cancelled() {
                break;
            }
        }
        publisher.close().await;
        Ok(())
    }

    /// A producer, how far the relay had come, and the end of the log that its progress tells of.
    async fn open(
        &self,
        shutdown: &CancellationToken,
    ) -> Result<(TopicMaker, Publisher, Position, Option<Position>), Failure> {
        let mut maker = TopicMaker::new(&self.config).map_err(Failure::kafka)?;
        self.make_progress_topic(&maker).await.map_err(Failure::kafka)?;
        let opened = Publisher::open(&self.config, self.hook.clone(), shutdown).await;
        let (publisher, progress) = opened.map_err(Failure::publish)?;
        if let Some(progress) = &progress {
            maker.check(progress.partitions.keys().cloned().collect()).await?;
        }
        let told = progress.as_ref().map(|progress| progress.head);
        let last = self.resume(progress).await?;
        self.published.send_replace(last);
        Ok((maker, publisher, last, told))
    }

    /// Where the brokers refuse this client, creating the topic takes a minute to fail, and says nothing of it.
    async fn make_progress_topic(&self, maker: &TopicMaker) -> KafkaResult<()> {
        let denied = async {
            tokio::time::sleep(SOON).await;
            self.denied().await
        };
        tokio::select! {
            made = maker.progress() => match made {
                Ok(()) => Ok(()),
                Err(error) => Err(self.denied().await.unwrap_or(error)),
            },
            Some(refused) = denied => Err(refused),
        }
    }

    /// What the brokers refuse this client. The client that creates topics does not say, so another one asks.
    async fn denied(&self) -> Option<KafkaError> {
        let config = self.config.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let client = client::consumer(&config.brokers, &config.transactional_id(), &config.settings);
            let consumer: BaseConsumer<Quiet> = client.create_with_context(Quiet).ok()?;
            consumer.fetch_metadata(None, ASKED).err()?;
            follower::told(&consumer)
        });
        asked.await.ok().flatten()
    }

    async fn ensure_topics(&self, maker: &mut TopicMaker, batch: &[RecordedEvent]) -> Result<(), Failure> {
        for event in batch {
            maker.events(event.stream.category()).await?;
        }
        Ok(())
    }

    /// The position behind which to go on, once the log is known to be the one that was published.
    async fn resume(&self, progress: Option<Progress>) -> Result<Position, Failure> {
        let published = progress.filter(|progress| progress.position > Position::ZERO);
        let Some(progress) = published else { return Ok(Position::ZERO) };
        let (position, published) = (progress.position, progress.witness());
        let before = Position::new(position.get().saturating_sub(1));
        let found = self.store.read_log(before, 1).await.map_err(Failure::read)?.first().map(Witness::of);
        if found == Some(published) {
            Ok(position)
        } else {
            let progress = Topics::new(&self.config.topic_prefix).progress();
            Err(Failure::Final(RelayError::OtherHistory { position, published, found, progress }))
        }
    }

    /// The next events, and where the log ends.
    async fn read(&self, after: Position, pace: &Pace) -> Result<(VecDeque<RecordedEvent>, Position), Failure> {
        let events = self.store.read_log(after, pace.limit).await.map_err(Failure::read)?;
        // Dense positions make every loss visible (R3).
        let mut expected = after;
        for event in &events {
            if event.position != expected.next() {
                return Err(Failure::read(ReadError::Gap { after: expected, found: event.position }));
            }
            expected = event.position;
        }
        // Only a relay that is behind has to ask.
        let is_behind = events.len() >= pace.limit;
        let head = if is_behind { self.store.head().await.map_err(Failure::read)? } else { expected };
        Ok((events.into(), head))
    }

    /// The events of one transaction from the front of `pending`.
    fn cut(&self, pending: &mut VecDeque<RecordedEvent>, pace: &mut Pace) -> Vec<RecordedEvent> {
        let total: usize = pending.iter().map(|event| event.data.payload.len()).sum();
        pace.adapt(pending.len(), total, self.config.batch_bytes);
        let mut bytes = 0;
        let fitting = pending.iter().take(pace.limit).take_while(|event| {
            bytes += event.data.payload.len();
            bytes <= self.config.batch_bytes
        });
        let count = fitting.count().max(1).min(pending.len());
        pending.drain(..count).collect()
    }
}

/// How long brokers that accept this client take at most, as a rule, to answer it.
const SOON: Duration = Duration::from_secs(1);
/// How long brokers may refuse this client: one that is starting may not know the accounts yet.
const ASKED: Duration = Duration::from_secs(10);

/// How long a relay that may not create topics waits for a missing one.
const MISSING: Duration = Duration::from_secs(30);

/// 100 ms at first, up to 10 s, with jitter.
fn back_off(failures: u32) -> Duration {
    let longest = Duration::from_millis(100 << failures.min(7)).min(Duration::from_secs(10));
    longest.mul_f64(0.5 + fastrand::f64() / 2.0)
}
