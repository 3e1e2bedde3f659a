//! The transactions of a relay: events and progress, together or not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use es_core::{Position, RecordedEvent};
use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, Producer},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    claims::Claims,
    deliveries::{Deliveries, PROGRESS, Rewound},
    failure::{PublishError, RelayError},
    forecast::Forecast,
    orphan,
    producer::{self, PATIENCE, Patience, SHUTDOWN_GRACE, classify, init},
    recess::Recess,
    rerouted, verify,
};
use crate::{
    claim::Claim,
    client,
    config::{RelayConfig, Step, StepHook},
    partitioner,
    progress::{self, Progress, ProgressError},
    record, refusal,
    topics::Topics,
};

const COMMIT_SLICE: Duration = Duration::from_secs(2);

pub(crate) struct Transactions {
    producer: BaseProducer<Deliveries>,
    /// Makes consumers beside it.
    consumer: ClientConfig,
    config: Arc<RelayConfig>,
    hook: Option<StepHook>,
    shutdown: CancellationToken,
    topics: Topics,
    recess: Recess,
    forecast: Forecast,
    /// What the last transaction has committed.
    pub(crate) progress: Option<Progress>,
}

impl Transactions {
    pub(crate) fn open(
        config: Arc<RelayConfig>,
        hook: Option<StepHook>,
        shutdown: CancellationToken,
    ) -> Result<Self, PublishError> {
        let topics = config.names();
        let producer: BaseProducer<Deliveries> =
            producer::settings(&config).create_with_context(Deliveries::default()).map_err(PublishError::Kafka)?;
        init(&producer, &shutdown)?;
        let consumer = client::consumer(&config.brokers, &config.transactional_id(), &config.settings);
        let consumer = client::of_leaders(&consumer);
        let progress =
            progress::read_last(&consumer, &topics.progress(), &config.name, PATIENCE).map_err(
                |error| match error {
                    ProgressError::Kafka(error) => PublishError::Kafka(error),
                    ProgressError::Damaged { offset, reason } => PublishError::Progress { offset, reason },
                    ProgressError::Undecided(open) => PublishError::Undecided(open),
                },
            )?;
        if let Some(progress) = progress.as_ref().filter(|progress| progress.position > Position::ZERO) {
            if let Some(refusal) = rerouted::refusal(progress, &topics) {
                return Err(stopped(refusal));
            }
            let refusal = verify::refusal(&consumer, progress, &topics.progress(), PATIENCE);
            if let Some(refusal) = refusal? {
                return Err(stopped(refusal));
            }
            producer.context().reports().next = progress.offsets.clone();
        } else if let Some((topic, partition)) =
            orphan::find(&consumer, &topics, PATIENCE).map_err(PublishError::Kafka)?
        {
            let (name, progress) = (config.name.clone(), topics.progress());
            return Err(stopped(RelayError::NoProgress { name, topic, partition, progress }));
        }
        let (recess, forecast) = (Recess::new(), Forecast::default());
        Ok(Self { producer, consumer, config, hook, shutdown, topics, recess, forecast, progress })
    }

    /// The progress that the next transaction makes: so far, what was published before it.
    fn begun(&self) -> Progress {
        let progress = self.progress.clone().unwrap_or_else(|| Progress::nothing(Uuid::now_v7()));
        Progress { targets: self.topics.targets().clone(), ..progress }
    }

    /// One transaction: the events, and the progress that they amount to.
    pub(crate) fn publish(
        &mut self,
        events: &[RecordedEvent],
        claims: &Claims,
        head: Position,
    ) -> Result<Progress, PublishError> {
        let outcome = loop {
            match self.transaction(events, claims, head) {
                Ok(Some(progress)) => break Ok(progress),
                Ok(None) => {
                    tracing::warn!(
                        relay = self.config.name,
                        "offsets are not as they were foretold: does another producer write to a topic of this relay?"
                    );
                    self.forecast.was_wrong();
                    if let Err(error) = self.producer.abort_transaction(PATIENCE) {
                        break Err(self.classify(error));
                    }
                    self.recess.begin();
                }
                Err(error) => break Err(error),
            }
        };
        match &outcome {
            Ok(progress) => self.progress = Some(progress.clone()),
            // A crash leaves the transaction open, as a real one would.
            Err(PublishError::Fenced | PublishError::Gone) => {}
            // Best effort: the next producer of this name aborts it otherwise.
            Err(_) => _ = self.producer.abort_transaction(SHUTDOWN_GRACE),
        }
        outcome
    }

    /// `None` if the forecast was wrong: the transaction is to be aborted, and made again without.
    fn transaction(
        &mut self,
        events: &[RecordedEvent],
        claims: &Claims,
        head: Position,
    ) -> Result<Option<Progress>, PublishError> {
        let first = self.first(events)?;
        self.recess.end();
        self.producer.begin_transaction().map_err(|error| self.classify(error))?;
        let told = self.producer.context().begin();
        let mut progress = self.begun();
        progress.partitions.extend(first);
        if let Some(last) = events.last() {
            (progress.position, progress.event_id, progress.recorded_at) = (last.position, last.id, last.recorded_at);
        }
        progress.head = head.max(progress.position);

        let (mut next, mut sent) = (self.forecast.begin(&told), 0);
        for (index, event) in events.iter().enumerate() {
            if self.topics.publishes(event.stream.category()) {
                let (topic, partition) = self.send(event, claims.get(&event.position), index, &mut progress)?;
                next = next.and_then(|next| next.counting(&topic, partition));
                sent += 1;
            }
        }
        self.step(Step::Sent, events)?;
        let all_sent = Instant::now();
        let foretold = next.map(|next| next.offsets);
        if foretold.is_none() {
            self.settle(sent)?;
        }
        progress.offsets = foretold.unwrap_or_else(|| self.producer.context().reports().next.clone());
        self.step(Step::BeforeProgress, events)?;
        let (topic, value) = (self.topics.progress(), progress.encode());
        self.enqueue(|| {
            BaseRecord::with_opaque_to(&topic, PROGRESS)
                .partition(0)
                .key(self.config.name.as_str())
                .payload(value.as_slice())
        })?;
        self.settle(sent + 1)?;
        {
            let reports = self.producer.context().reports();
            if let Some(answered) = reports.answered {
                self.recess.learn(answered.saturating_duration_since(all_sent));
            }
            if reports.next != progress.offsets {
                return Ok(None);
            }
        }

        self.step(Step::BeforeCommit, events)?;
        self.commit()?;
        self.recess.begin();
        self.step(Step::Committed, events)?;
        self.forecast.committed(&told, &progress.offsets);
        Ok(Some(progress))
    }

    /// Returns where it goes.
    fn send(
        &self,
        event: &RecordedEvent,
        claim: Option<&Claim>,
        index: usize,
        progress: &mut Progress,
    ) -> Result<(String, i32), PublishError> {
        let topic = self.topics.events(event.stream.category());
        let partition = partitioner::partition(event.stream.as_str().as_bytes(), progress.partitions[&topic]);
        let previous = progress.positions.set(&topic, partition, event.position).unwrap_or_default();
        self.enqueue(|| {
            let (headers, value) = record::written(event, &self.config.source, previous, claim);
            BaseRecord::with_opaque_to(&topic, index)
                .partition(partition)
                .key(event.stream.as_str())
                .payload(value)
                .headers(headers)
        })?;
        Ok((topic, partition))
    }

    /// The topics that are about to get their first event, and how many partitions each has.
    ///
    /// # Errors
    /// If one of them holds records already, which are no events of this log: readers would take them for such.
    fn first(&self, events: &[RecordedEvent]) -> Result<BTreeMap<String, i32>, PublishError> {
        let known = self.progress.as_ref().map(|progress| &progress.partitions);
        let is_first = |topic: &String| known.is_none_or(|known| !known.contains_key(topic));
        let categories: BTreeSet<_> = events.iter().map(|event| event.stream.category()).collect();
        let mut first = BTreeMap::new();
        for topic in categories.into_iter().filter_map(|category| self.topics.target(category)).filter(is_first) {
            let count = self.count(&topic)?;
            if let Some(partition) = self.occupied(&topic, count)? {
                return Err(stopped(RelayError::Occupied { topic, partition }));
            }
            first.insert(topic, count);
        }
        Ok(first)
    }

    /// A partition of a topic that holds records.
    fn occupied(&self, topic: &str, count: i32) -> Result<Option<i32>, PublishError> {
        let mut patience = Patience::new();
        loop {
            match orphan::find_in(&self.consumer, topic, count, PATIENCE) {
                Ok(found) => return Ok(found),
                Err(error) if is_new(&error) && !patience.is_over(&self.shutdown) => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(error) => return Err(PublishError::Kafka(error)),
            }
        }
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
        let mut patience = Patience::new();
        loop {
            match self.producer.send(record()) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _))
                    if !patience.is_over(&self.shutdown) =>
                {
                    producer::wait(&self.producer, patience.pause());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                    return Err(PublishError::TooLarge { by_client: true });
                }
                Err((error, _)) => return Err(self.classify(error)),
            }
        }
    }

    /// Waits for the delivery reports of all records of the transaction, of which there must be
    /// `expected`. Only then may it be committed: `commit_transaction` itself waits in steps of
    /// 100 ms while anything is in flight.
    fn settle(&self, expected: usize) -> Result<(), PublishError> {
        if !producer::flush(&self.producer, &self.shutdown) {
            if self.producer.context().reports().may_not_write {
                let denied = RDKafkaErrorCode::TopicAuthorizationFailed;
                return Err(PublishError::Kafka(KafkaError::MessageProduction(denied)));
            }
            return Err(PublishError::Kafka(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)));
        }
        let mut reports = self.producer.context().reports();
        if let Some(Rewound { topic, partition, known, found }) = reports.rewound.take() {
            let (found, progress) = (format!("the next event got offset {found}"), self.topics.progress());
            return Err(stopped(RelayError::Rewound { topic, partition, known, found, progress }));
        }
        if let Some((index, error)) = reports.failed.take() {
            drop(reports);
            if index != PROGRESS && error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
                return Err(PublishError::TooLarge { by_client: false });
            }
            return Err(self.classify(error));
        }
        if reports.confirmed == expected { Ok(()) } else { Err(PublishError::Kafka(KafkaError::Canceled)) }
    }

    fn commit(&self) -> Result<(), PublishError> {
        let mut patience = Patience::new();
        loop {
            // In slices: a commit that timed out may be called again and continues where it was.
            match self.producer.commit_transaction(COMMIT_SLICE) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(error)) if error.is_retriable() && !patience.is_over(&self.shutdown) => {}
                // Whether it is committed is unknown; the next producer learns it from the progress.
                Err(error) => return Err(self.classify(error)),
            }
        }
    }

    /// What the relay says when it starts has no steps at which a test could end it.
    fn step(&self, step: Step, events: &[RecordedEvent]) -> Result<(), PublishError> {
        match self.hook.as_ref().filter(|_| !events.is_empty()).map(|StepHook(hook)| hook(step)) {
            Some(ControlFlow::Break(())) => Err(PublishError::Gone),
            _ => Ok(()),
        }
    }

    fn classify(&self, error: KafkaError) -> PublishError {
        classify(&self.producer, error)
    }
}

/// Not every broker knows a new topic at once, or that it leads one.
fn is_new(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{LeaderNotAvailable, NotLeaderForPartition};
    let code = error.rdkafka_error_code();
    refusal::is_unknown_topic(error) || matches!(code, Some(LeaderNotAvailable | NotLeaderForPartition))
}

fn stopped(refusal: RelayError) -> PublishError {
    PublishError::Stopped(Box::new(refusal))
}
