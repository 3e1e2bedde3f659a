//! A relay that publishes the records of [`Relay`](es_kafka::Relay) without transactions: what is to be found
//! ([`Plant::NoTransactions`](super::Plant::NoTransactions)).

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use es_core::{
    EventStore, Position, RecordedEvent, WorkerState,
    backend::{EventSource, StateReport},
    service::{Engine, PartError, Relay},
};
use es_kafka::{KafkaRelay, Progress, RelayConfig, Topics, headers};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    producer::{FutureProducer, FutureRecord},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(10);

/// Takes the place of a [`KafkaRelay`] with one partition a topic.
#[derive(Debug)]
pub(crate) struct NaiveRelay(KafkaRelay);

impl NaiveRelay {
    pub(crate) fn new(relay: KafkaRelay) -> Self {
        Self(relay)
    }
}

impl Relay for NaiveRelay {
    fn engine(&self, service: &str, log: Arc<dyn EventStore>) -> Box<dyn Engine> {
        Box::new(Publishing { config: self.0.config(service), log, report: StateReport::default() })
    }

    fn source(&self, service: &str, log: Arc<dyn EventStore>) -> Arc<dyn EventSource> {
        Relay::source(&self.0, service, log)
    }
}

struct Publishing {
    config: RelayConfig,
    log: Arc<dyn EventStore>,
    report: StateReport,
}

/// What was published, as far as this relay knows.
#[derive(Default)]
struct Published {
    incarnation: Option<Uuid>,
    position: Position,
    /// For each topic the next offset and the last position.
    topics: BTreeMap<String, (i64, Position)>,
}

#[async_trait]
impl Engine for Publishing {
    async fn run(&self, shutdown: CancellationToken) -> Result<(), PartError> {
        self.report.set(&self.config.name, WorkerState::Working);
        let published = shutdown.run_until_cancelled(self.publish()).await;
        published.unwrap_or(Ok(())).map_err(PartError::Transient)
    }

    fn report(&self) -> &StateReport {
        &self.report
    }
}

impl Publishing {
    async fn publish(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.config.brokers).set("enable.idempotence", "true");
        let topics = Topics::new(&self.config.topic_prefix);
        let admin: AdminClient<DefaultClientContext> = client.create()?;
        let producer: FutureProducer = client.create()?;
        for topic in [topics.progress(), topics.events("account")] {
            let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(self.config.replication));
            admin.create_topics([&new], &AdminOptions::new()).await?;
        }
        let (reading, topic, name) = (client.clone(), topics.progress(), self.config.name.clone());
        let mut published = tokio::task::spawn_blocking(move || last(reading, &topic, &name)).await??;
        let incarnation = published.incarnation.unwrap_or_else(Uuid::now_v7);
        loop {
            let events = self.log.read_log(published.position, 100).await?;
            let Some(last) = events.last() else {
                self.log.wait_past(published.position).await?;
                continue;
            };
            let mut sent = Vec::new();
            for event in &events {
                let topic = topics.events(event.stream.category());
                let (_, previous) = published.topics.entry(topic.clone()).or_default();
                let headers = headers(event, &self.config.source, std::mem::replace(previous, event.position));
                let record = FutureRecord::to(&topic).partition(0).key(event.stream.as_str()).headers(headers);
                let record = record.payload(event.data.payload.as_ref());
                let delivery = producer.send_result(record).map_err(|(error, _)| error)?;
                sent.push((topic, delivery));
            }
            for (topic, delivery) in sent {
                let delivered = delivery.await?.map_err(|(error, _)| error)?;
                published.topics.entry(topic).or_default().0 = delivered.offset + 1;
            }
            // What two writes do of which the second one is late.
            tokio::time::sleep(Duration::from_millis(20)).await;
            published.position = last.position;
            let progress = progress(incarnation, &published, last).to_string();
            let topic = topics.progress();
            let record = FutureRecord::to(&topic).partition(0).key(&self.config.name).payload(&progress);
            producer.send(record, PATIENCE).await.map_err(|(error, _)| error)?;
        }
    }
}

fn progress(incarnation: Uuid, published: &Published, last: &RecordedEvent) -> serde_json::Value {
    let of_each = |value: &dyn Fn(&(i64, Position)) -> serde_json::Value| -> serde_json::Value {
        published.topics.iter().map(|(topic, at)| (topic.clone(), json!({ "0": value(at) }))).collect()
    };
    let partitions: BTreeMap<&String, i32> = published.topics.keys().map(|topic| (topic, 1)).collect();
    json!({
        "incarnation": incarnation, "position": last.position, "event_id": last.id, "recorded_at": last.recorded_at,
        "head": last.position, "offsets": of_each(&|(next, _)| json!(next)),
        "positions": of_each(&|(_, position)| json!(position)), "partitions": partitions,
    })
}

/// Where the progress says that the former relay was.
fn last(mut client: ClientConfig, topic: &str, name: &str) -> Result<Published, KafkaError> {
    client.set("group.id", "naive").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = client.create()?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&assignment)?;
    let (mut found, began) = (Published::default(), Instant::now());
    while began.elapsed() < PATIENCE {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(record)) if record.key() == Some(name.as_bytes()) => {
                let progress: Progress =
                    serde_json::from_slice(record.payload().unwrap_or_default()).expect("this relay has written it");
                found = Published {
                    incarnation: Some(progress.incarnation),
                    position: progress.position,
                    topics: BTreeMap::new(),
                };
                for (topic, partition, next) in progress.offsets.iter() {
                    found.topics.insert(topic.to_owned(), (next, progress.last(topic, partition)));
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(found),
            _ => {}
        }
    }
    Err(KafkaError::OffsetFetch(rdkafka::error::RDKafkaErrorCode::OperationTimedOut))
}
