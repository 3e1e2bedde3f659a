//! Compares every read model with the fold of the log, and Kafka with the log.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use chrono::{DateTime, Utc};
use es_core::{
    EventStore, KeyRange, Position, Projection, RecordedEvent, Service, StreamId, Version, backend::Documents,
    react::saga::Overview, testing::project,
};
use es_kafka::Topics;
use order_service::{
    fulfilment::Fulfilment,
    read_models::{AuditTrail, DailyRevenue, OrderDetails, OrderFunnel, OrderTables, OrdersByCustomer, Stock, Wanted},
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use crate::ground::Ground;

/// How long everything may take to catch up: only a failure waits for it.
const PATIENCE: Duration = Duration::from_mins(2);

/// The whole log.
pub(crate) async fn log(service: &Service) -> Vec<RecordedEvent> {
    let mut log: Vec<RecordedEvent> = Vec::new();
    loop {
        let after = log.last().map_or(Position::ZERO, |event| event.position);
        let page = service.store().read_log(after, 10_000).await.expect("the log can be read");
        if page.is_empty() {
            return log;
        }
        log.extend(page);
    }
}

/// Returns when the saga and all read models have reached the head of the log, and nothing is to be done for the saga.
pub(crate) async fn caught_up(service: &Service) {
    let sagas = service.sagas::<Fulfilment>();
    let at_rest = async {
        loop {
            service.settled(PATIENCE).await.expect("they catch up");
            // Clients take the steps of the orders, so no timer is set.
            let due = Overview::DUE.range(DateTime::UNIX_EPOCH..DateTime::<Utc>::MAX_UTC);
            if sagas.overview().find(due, 1).await.expect("it serves").documents.is_empty() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, at_rest).await.expect("it comes to rest");
}

/// Returns when a read model has folded some events, whether it serves already or not.
pub(crate) async fn begun(service: &Service, name: &str) {
    loop {
        let found = service.store().generations(name).await.expect("the store is up");
        if found.serving.or(found.building).is_some_and(|progress| progress.furthest > Position::ZERO) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Every read model equals the fold of the log (R9).
pub(crate) async fn read_models_equal_the_fold(service: &Service) {
    let log = log(service).await;
    read_model_equals_the_fold(OrderDetails, service, &log).await;
    read_model_equals_the_fold(OrdersByCustomer, service, &log).await;
    read_model_equals_the_fold(DailyRevenue, service, &log).await;
    read_model_equals_the_fold(AuditTrail, service, &log).await;
    read_model_equals_the_fold(OrderFunnel, service, &log).await;
    read_model_equals_the_fold(Stock, service, &log).await;
    tables_equal_the_fold(service, &log).await;
}

/// The table of the search holds what is folded of each order.
async fn tables_equal_the_fold(service: &Service, log: &[RecordedEvent]) {
    let all = Wanted { limit: i64::MAX, ..Wanted::default() };
    let found = OrderTables::of(service, PATIENCE).find(&all).await.expect("it serves");
    let found = found.orders.into_iter().map(|(customer, order)| (format!("{customer}/{}", order.order_id), order));
    let folded = project(&OrdersByCustomer, log).expect("folded");
    assert_eq!(found.collect::<BTreeMap<_, _>>(), folded.into_iter().collect(), "order-search");
}

async fn read_model_equals_the_fold<P: Projection>(projection: P, service: &Service, log: &[RecordedEvent])
where
    P::Document: PartialEq + Debug,
{
    let truth = project(&projection, log).expect("the log can be folded");
    let model = service.read_model::<P>();
    let documents = model.scan(KeyRange::default(), usize::from(u16::MAX) * 10).await.expect("a scan").documents;
    assert_eq!(documents.len(), truth.len(), "{}: as many documents", P::NAME);
    for ((key, document), (true_key, truth)) in documents.iter().zip(&truth) {
        assert_eq!((key, document), (true_key, truth), "{}", P::NAME);
    }
}

/// Every position is in Kafka once for a `read_committed` reader, and per key in version order (R10).
pub(crate) async fn kafka_holds_the_log_once(ground: &Ground) {
    let log = log(&ground.service).await;
    let (brokers, prefix) = (ground.parts.kafka.clone().expect("it is set"), ground.parts.topic_prefix.clone());
    let records = tokio::task::spawn_blocking(move || read_committed(&brokers, &Topics::new(prefix)));
    let records = records.await.expect("no panic");

    let mut versions: BTreeMap<StreamId, Version> = BTreeMap::new();
    for record in &records {
        let version = versions.entry(record.stream.clone()).or_default();
        assert_eq!(record.version, version.next(), "{}: in version order", record.stream);
        *version = record.version;
    }
    let mut records = records;
    records.sort_by_key(|record| record.position);
    assert_eq!(records.len(), log.len(), "each event once");
    for (record, event) in records.iter().zip(&log) {
        assert_eq!(record, event);
    }
}

/// All events in all topics, partition by partition, each in the order of its offsets.
fn read_committed(brokers: &str, topics: &Topics) -> Vec<RecordedEvent> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "compare")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let metadata = consumer.fetch_metadata(None, Duration::from_secs(30)).expect("the broker is up");
    let mut assignment = TopicPartitionList::new();
    for topic in metadata.topics().iter().filter(|topic| topics.category(topic.name()).is_some()) {
        for partition in topic.partitions() {
            assignment.add_partition_offset(topic.name(), partition.id(), Offset::Beginning).expect("it exists");
        }
    }
    consumer.assign(&assignment).expect("assigned");
    let (mut events, mut open) = (Vec::new(), assignment.count());
    while open > 0 {
        match consumer.poll(Duration::from_secs(30)).expect("the broker is up") {
            Ok(record) => events.push((
                (record.topic().to_owned(), record.partition(), record.offset()),
                es_kafka::decode(&record).expect("an event"),
            )),
            Err(KafkaError::PartitionEOF(_)) => open -= 1,
            Err(error) => panic!("{error}"),
        }
    }
    events.sort_by(|one, other| one.0.cmp(&other.0));
    events.into_iter().map(|(_, event)| event).collect()
}
