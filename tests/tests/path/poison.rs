//! A record that no reader can decode lies in a topic.

use std::time::Duration;

use es_core::Projection;
use es_kafka::Topics;
use order_service::read_models::{
    AuditTrail, DailyRevenue, OrderDetails, OrderFunnel, OrderSearch, OrdersByCustomer, Stock,
};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};

use crate::{clients::Clients, compare, ground::Ground};

const PATIENCE: Duration = Duration::from_secs(30);

/// The read models that read payments. The saga and the other read models do not.
const POISONED: [&str; 2] = [DailyRevenue::NAME, AuditTrail::NAME];

/// A process that keeps the others.
const OTHERS: [&str; 6] =
    ["project", OrderDetails::NAME, OrdersByCustomer::NAME, OrderSearch::NAME, Stock::NAME, OrderFunnel::NAME];

/// Writes a record that is no event to each partition of the payments.
async fn poison_payments(ground: &Ground) {
    let brokers = ground.parts.kafka.clone().expect("it is set");
    let topic = Topics::new(ground.parts.topic_prefix.clone()).events("payment");
    let written = tokio::task::spawn_blocking(move || {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a producer");
        let metadata = producer.client().fetch_metadata(Some(&topic), PATIENCE).expect("the broker is up");
        for partition in metadata.topics()[0].partitions() {
            let record = BaseRecord::<str, str>::to(&topic).partition(partition.id()).payload("?");
            producer.send(record).expect("there is room");
        }
        producer.flush(PATIENCE).expect("the broker is up");
    });
    written.await.expect("no panic");
}

/// R11: the record stops the read models that read it. After a rebuild from the log they continue in Kafka after it. Seen to
/// fail where a new cursor begins at the first record: both read models stopped at the record again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_read_models_rebuilt_from_the_log_continue_in_kafka_after_a_record_that_cannot_be_read() {
    let ground = Ground::new().await;
    let (url, _serving) = ground.serve().await;
    let _others = [vec!["publish"], vec!["saga"], OTHERS.to_vec()].map(|role| ground.spawn(&role));

    let stopping = ground.start(POISONED).await;
    Clients::start(&url, 4, 40).done().await;
    compare::caught_up(&ground.service).await;
    poison_payments(&ground).await;
    Clients::start_at(&url, 4, 40..80).done().await;
    tokio::time::timeout(PATIENCE, stopping.ended()).await.expect("they meet the record");
    let stopped = stopping.status().await.stopped();
    assert!(stopped.len() == 2 && stopped.iter().all(|reason| reason.contains("offset")), "{stopped:?}");

    for name in POISONED {
        let mut rebuild = ground.spawn(&["rebuild", name, "--from", "log"]);
        let status = tokio::task::spawn_blocking(move || rebuild.wait()).await.expect("no panic");
        assert!(status.expect("it is ours").success(), "{name}");
    }
    let rebuilt = ground.start(POISONED).await;
    Clients::start_at(&url, 4, 80..120).done().await;
    compare::caught_up(&ground.service).await;
    compare::read_models_equal_the_fold(&ground.service).await;
    for service in [stopping, rebuilt] {
        service.shutdown(Duration::from_secs(10)).await.expect("it ends in time");
    }
}
