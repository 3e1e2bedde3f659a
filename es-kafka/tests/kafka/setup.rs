//! A log, topics of its own, and an independent reader of them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use es_core::{
    Append, Appended, EventData, EventStore, Expected, MemoryStore, NewEvent, Position, RecordedEvent, StreamId,
    WorkerState,
};
use es_kafka::{Progress, Relay, RelayConfig, RelayError, Topics};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, Producer},
};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// No step of any test takes longer, even when the machine holds its breath.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) fn brokers() -> String {
    std::env::var("KAFKA_BROKERS").expect("these tests need a broker: set KAFKA_BROKERS, or run `cargo xtask test`")
}

/// One log, and topics that no other test sees.
#[derive(Clone)]
pub(crate) struct House {
    pub(crate) store: MemoryStore,
    pub(crate) prefix: String,
}

impl House {
    pub(crate) fn new() -> Self {
        // `RUST_LOG=es_kafka=debug` shows what relay and source say.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        Self { store: MemoryStore::new(), prefix: format!("t{}-", &Uuid::now_v7().simple().to_string()[20..]) }
    }

    pub(crate) fn topics(&self) -> Topics {
        Topics::new(&self.prefix)
    }

    pub(crate) fn config(&self) -> RelayConfig {
        RelayConfig { topic_prefix: self.prefix.clone(), ..RelayConfig::new(brokers(), "relay") }
    }

    pub(crate) fn relay(&self) -> Relay {
        Relay::new(Arc::new(self.store.clone()), self.config())
    }

    /// Appends `count` events to the stream `<category>-<id>`.
    pub(crate) async fn append(&self, category: &str, id: &str, count: usize) -> Appended {
        self.append_sized(category, id, count, 20).await
    }

    pub(crate) async fn append_sized(&self, category: &str, id: &str, count: usize, bytes: usize) -> Appended {
        self.append_events(category, id, (0..count).map(|_| event(category, bytes)).collect()).await
    }

    pub(crate) async fn append_events(&self, category: &str, id: &str, events: Vec<NewEvent>) -> Appended {
        let stream = StreamId::new(category, id).unwrap();
        self.store.append(Append::new(stream, Expected::Any, events)).await.unwrap()
    }

    /// Creates a topic, also while one of its name is still being deleted.
    pub(crate) async fn create_topic(&self, topic: &str, partitions: i32) {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let deadline = Instant::now() + PATIENCE;
        loop {
            match admin().create_topics([&new], &AdminOptions::new()).await.unwrap().remove(0) {
                Ok(_) => return,
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) if Instant::now() < deadline => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    /// Everything that a `read_committed` consumer finds, partition by partition, once the relay
    /// has published up to `until`.
    pub(crate) async fn published(&self, until: Position) -> Vec<Published> {
        let (topics, progress) = (self.topics(), self.progress(until).await);
        tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            for (topic, partition, next) in progress.offsets.iter() {
                assert!(topics.category(topic).is_some());
                read_partition(topic, partition, next, &mut found);
            }
            found
        })
        .await
        .unwrap()
    }

    /// The relay's progress once it has reached `until`.
    pub(crate) async fn progress(&self, until: Position) -> Progress {
        let topic = self.topics().progress();
        tokio::task::spawn_blocking(move || {
            let consumer = consumer();
            assign(&consumer, &topic, 0, Offset::Beginning);
            let deadline = Instant::now() + PATIENCE;
            loop {
                assert!(Instant::now() < deadline, "the relay has not reached {until}");
                if let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) {
                    let progress: Progress = serde_json::from_slice(record.payload().unwrap()).unwrap();
                    if progress.position >= until {
                        return progress;
                    }
                }
            }
        })
        .await
        .unwrap()
    }
}

/// A random payload: compression does not make it smaller by much.
pub(crate) fn event(category: &str, bytes: usize) -> NewEvent {
    let text: String = std::iter::repeat_with(fastrand::alphanumeric).take(bytes).collect();
    let data = EventData {
        name: format!("{category}.happened").into(),
        schema_version: 1,
        payload: format!("{{\"text\":\"{text}\"}}").into(),
    };
    NewEvent::new(data)
}

pub(crate) struct Published {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) event: RecordedEvent,
}

pub(crate) fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers()).create().unwrap()
}

pub(crate) fn consumer() -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .set("group.id", "test-observer")
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "20")
        .create()
        .unwrap()
}

fn assign(consumer: &BaseConsumer, topic: &str, partition: i32, offset: Offset) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, offset).unwrap();
    consumer.assign(&list).unwrap();
}

/// Reads up to the offset `next`, and then on to the end, where a duplicate would be.
fn read_partition(topic: &str, partition: i32, next: i64, found: &mut Vec<Published>) {
    let consumer = consumer();
    assign(&consumer, topic, partition, Offset::Beginning);
    let (mut reached, deadline) = (0, Instant::now() + PATIENCE);
    loop {
        assert!(Instant::now() < deadline, "{topic}/{partition} ends at {reached}, not at {next}");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => {
                reached = record.offset() + 1;
                found.push(Published { topic: topic.to_owned(), partition, event: es_kafka::decode(&record).unwrap() });
            }
            Some(Err(KafkaError::PartitionEOF(_))) if reached >= next => return,
            _ => {}
        }
    }
}

/// Opens a transaction in a partition and leaves it open: readers see nothing after it.
pub(crate) async fn open_transaction(topic: &str, partition: i32) -> BaseProducer {
    let (topic, id) = (topic.to_owned(), format!("{topic}-other"));
    let opened = tokio::task::spawn_blocking(move || {
        let mut config = ClientConfig::new();
        let producer: BaseProducer =
            config.set("bootstrap.servers", brokers()).set("transactional.id", id).create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        producer.send(BaseRecord::to(&topic).partition(partition).key("order-a").payload("?")).unwrap();
        producer.flush(PATIENCE).unwrap();
        producer
    });
    opened.await.unwrap()
}

/// A relay in a task; dropping it asks for its shutdown.
pub(crate) struct Running {
    pub(crate) task: JoinHandle<Result<(), RelayError>>,
    _shutdown: DropGuard,
    shutdown: CancellationToken,
    published: tokio::sync::watch::Receiver<Position>,
    state: tokio::sync::watch::Receiver<WorkerState>,
}

impl Running {
    pub(crate) fn start(relay: Relay) -> Self {
        let shutdown = CancellationToken::new();
        let (token, published, state) = (shutdown.clone(), relay.published(), relay.state());
        let task = tokio::spawn(async move { relay.run(token).await });
        Self { task, _shutdown: shutdown.clone().drop_guard(), shutdown, published, state }
    }

    pub(crate) async fn reaches(&mut self, position: Position) {
        let reached = self.published.wait_for(|published| *published >= position);
        tokio::time::timeout(PATIENCE, reached).await.expect("the relay is late").unwrap();
    }

    /// Waits until the relay publishes, or no longer does.
    pub(crate) async fn works(&mut self, works: bool) {
        let changed = self.state.wait_for(|state| (*state == WorkerState::Working) == works);
        tokio::time::timeout(PATIENCE, changed).await.expect("the relay stays as it is").unwrap();
    }

    pub(crate) fn state(&self) -> WorkerState {
        self.state.borrow().clone()
    }

    pub(crate) async fn stop(self) -> Result<(), RelayError> {
        self.shutdown.cancel();
        self.ends().await
    }

    pub(crate) async fn ends(self) -> Result<(), RelayError> {
        tokio::time::timeout(PATIENCE, self.task).await.expect("the relay does not end").unwrap()
    }
}
