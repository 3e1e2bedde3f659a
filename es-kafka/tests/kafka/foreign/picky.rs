//! A consumer that refuses some messages, and what becomes of these.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use es_core::{
    Backoff, Consumer, ConsumerRunner, EngineError, FailurePolicy, PolicyError, Recorded,
    backend::{EventFeed, EventSource, FailedEvent, Forwarded, Inspect, Shard, SourceError, Subscription},
};
use es_kafka::KafkaTopic;
use rdkafka::{Message, Offset, TopicPartitionList, consumer::Consumer as _, message::Headers};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::setup::{Foreign, PaymentMessage, Payments};
use crate::setup::{PATIENCE, consumer};

/// A record as it is in a topic.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kept {
    pub(crate) key: Option<String>,
    pub(crate) value: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) partition: i32,
}

impl Kept {
    /// The last header of this name.
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().rfind(|(key, _)| key == name);
        found.map_or_else(|| panic!("{name} in {self:?}"), |(_, value)| value.as_str())
    }

    pub(crate) fn time(&self, name: &str) -> DateTime<Utc> {
        self.header(name).parse().unwrap()
    }
}

/// Waits until a topic has so many records, and returns them.
pub(crate) async fn records(topic: String, count: usize) -> Vec<Kept> {
    let read = tokio::task::spawn_blocking(move || {
        let consumer = consumer();
        let deadline = Instant::now() + PATIENCE;
        let partitions = loop {
            assert!(Instant::now() < deadline, "there is no topic {topic}");
            let metadata = consumer.fetch_metadata(Some(&topic), PATIENCE).unwrap();
            match metadata.topics().first().map(|found| found.partitions().len()) {
                Some(partitions) if partitions > 0 => break partitions,
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let mut list = TopicPartitionList::new();
        for partition in 0..i32::try_from(partitions).unwrap() {
            list.add_partition_offset(&topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        let mut found = Vec::new();
        while found.len() < count {
            assert!(Instant::now() < deadline, "{found:?} and no more in {topic}");
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) {
                found.push(kept(&message));
            }
        }
        found
    });
    read.await.unwrap()
}

fn kept(message: &impl Message) -> Kept {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    Kept {
        key: message.key().map(text),
        value: message.payload().map(text),
        headers: headers.map(|header| (header.key.to_owned(), text(header.value.unwrap_or_default()))).collect(),
        partition: message.partition(),
    }
}

type Refuses = dyn Fn(u64, usize) -> bool + Send + Sync;

/// What a consumer has seen: amounts, with when that was.
#[derive(Clone, Default)]
pub(super) struct Seen(Arc<Mutex<Vec<Sight>>>);

/// An amount, and when it was seen.
type Sight = (u64, DateTime<Utc>);

impl Seen {
    pub(super) fn amounts(&self) -> Vec<u64> {
        self.0.lock().unwrap().iter().map(|(amount, _)| *amount).collect()
    }

    /// When `amount` was seen for the `nth` time.
    pub(super) fn at(&self, amount: u64, nth: usize) -> DateTime<Utc> {
        self.0.lock().unwrap().iter().filter(|(seen, _)| *seen == amount).nth(nth).unwrap().1
    }

    pub(super) async fn has(&self, amount: u64, times: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.amounts().iter().filter(|seen| **seen == amount).count() < times {
            assert!(Instant::now() < deadline, "{:?}", self.amounts());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Handles payments, and refuses some.
pub(super) struct Picky<const OTHER: bool> {
    pub(super) seen: Seen,
    /// Whether a payment of so much is refused, which was seen so often before.
    pub(super) refuses: Box<Refuses>,
    pub(super) of: Payments,
}

async fn handle(picky: (&Seen, &Refuses, &Payments), message: &Recorded<PaymentMessage>) -> Result<(), PolicyError> {
    let (seen, refuses, payments) = picky;
    if let PaymentMessage::Captured { cents, .. } = &message.data {
        let before = {
            let mut seen = seen.0.lock().unwrap();
            let before = seen.iter().filter(|(amount, _)| amount == cents).count();
            seen.push((*cents, Utc::now()));
            before
        };
        if refuses(*cents, before) {
            return Err(PolicyError::Permanent("hunter2".into()));
        }
    }
    payments.handle(message).await
}

#[async_trait]
impl Consumer for Picky<false> {
    const NAME: &'static str = "picky";
    type Message = PaymentMessage;

    async fn handle(&self, message: &Recorded<PaymentMessage>) -> Result<(), PolicyError> {
        handle((&self.seen, &self.refuses, &self.of), message).await
    }
}

#[async_trait]
impl Consumer for Picky<true> {
    const NAME: &'static str = "other";
    type Message = PaymentMessage;

    async fn handle(&self, message: &Recorded<PaymentMessage>) -> Result<(), PolicyError> {
        handle((&self.seen, &self.refuses, &self.of), message).await
    }
}

/// A consumer in a task.
pub(super) struct Running {
    pub(super) task: JoinHandle<Result<(), EngineError>>,
    pub(super) seen: Seen,
    shutdown: CancellationToken,
    _ends: DropGuard,
}

impl Running {
    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        self.ends().await.unwrap();
    }

    pub(super) async fn ends(self) -> Result<(), EngineError> {
        tokio::time::timeout(PATIENCE, self.task).await.expect("the consumer does not end").unwrap()
    }
}

/// Two attempts at once.
pub(super) fn forwards() -> FailurePolicy {
    FailurePolicy::retry(Backoff::new(Duration::from_millis(1), Duration::from_millis(1)), 1).then_forward()
}

pub(super) fn start(
    foreign: &Foreign,
    source: impl EventSource,
    refuses: impl Fn(u64, usize) -> bool + Send + Sync + 'static,
    settings: impl FnOnce(ConsumerRunner<Picky<false>>) -> ConsumerRunner<Picky<false>>,
) -> Running {
    let seen = Seen::default();
    let picky = Picky::<false> { seen: seen.clone(), refuses: Box::new(refuses), of: foreign.payments() };
    let runner = settings(ConsumerRunner::new(picky, source, foreign.store.clone()).on_failure(forwards()));
    run(runner, seen)
}

pub(super) fn run<C: Consumer>(runner: ConsumerRunner<C>, seen: Seen) -> Running {
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    let task = tokio::spawn(async move { runner.run(token).await });
    Running { task, seen, _ends: shutdown.clone().drop_guard(), shutdown }
}

/// How far the consumer `name` is in a partition of a topic.
pub(super) async fn reached(foreign: &Foreign, name: &str, shard: &Shard) -> u64 {
    let readers = foreign.store.list_readers().await.unwrap();
    let shards = readers.into_iter().filter(|found| found.reader.name == name).flat_map(|found| found.shards);
    shards.into_iter().find(|found| found.shard == *shard).map_or(0, |found| found.position.get())
}

pub(super) async fn reaches(foreign: &Foreign, name: &str, shard: Shard, offset: u64) {
    let deadline = Instant::now() + PATIENCE;
    while reached(foreign, name, &shard).await < offset {
        assert!(Instant::now() < deadline, "{name} is at {} of {shard}", reached(foreign, name, &shard).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) fn retry(foreign: &Foreign, nth: usize, partition: u32) -> Shard {
    Shard::partition(format!("{}.retry.{nth}", foreign.topic), partition)
}

/// Waits until so many workers hold the shards of a reader.
pub(super) async fn owners(foreign: &Foreign, name: &str, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let leases = leases(foreign, name).await;
        let owners: BTreeSet<_> = leases.values().map(|(owner, _)| owner).collect();
        if owners.len() == count {
            return;
        }
        assert!(Instant::now() < deadline, "{leases:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Who holds the shards of a reader, with the fencing tokens.
pub(super) async fn leases(foreign: &Foreign, name: &str) -> BTreeMap<Shard, (Uuid, i64)> {
    let readers = foreign.store.list_readers().await.unwrap();
    let shards = readers.into_iter().filter(|found| found.reader.name == name).flat_map(|found| found.shards);
    shards.filter_map(|found| found.lease.map(|lease| (found.shard, (lease.owner, lease.fencing_token)))).collect()
}

/// A topic that takes a record, and then never says so: as if the process was killed before the checkpoint.
#[derive(Debug)]
pub(super) struct Hangs {
    pub(super) topic: KafkaTopic,
    pub(super) has_taken: Arc<Notify>,
}

#[async_trait]
impl EventSource for Hangs {
    async fn open(&self, subscription: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        self.topic.open(subscription).await
    }

    async fn forward(&self, failed: FailedEvent<'_>) -> Result<Forwarded, SourceError> {
        self.topic.forward(failed).await?;
        self.has_taken.notify_one();
        std::future::pending().await
    }
}
