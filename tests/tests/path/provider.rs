//! A payment provider tells in a topic of its own what it has captured.

use std::time::Duration;

use es_core::{Consumer, Service};
use order_service::{
    fulfilment,
    order::{Order, Status},
    provider::PaymentProvider,
};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, Producer},
};

use crate::ground::Ground;

const PATIENCE: Duration = Duration::from_secs(30);

/// Places an order; returns its id.
async fn place(client: &reqwest::Client, url: &str) -> String {
    let order = serde_json::json!({
        "userId": "USR-1", "totalAmount": 10.00, "items": [{"productId": "PROD-1", "quantity": 1, "price": 10.00}],
    });
    let placed = client.post(format!("{url}/api/orders?drive=manual")).json(&order).send().await.expect("it serves");
    let text = placed.text().await.expect("an answer");
    let placed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    placed["orderId"].as_str().unwrap_or_else(|| panic!("{text}")).to_owned()
}

async fn status(service: &Service, order: &str) -> Option<Status> {
    let loaded = service.repository::<Order>().load(order).await.expect("the store answers");
    loaded.state.0.map(|placed| placed.status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_an_order_is_paid_once_when_the_provider_says_so() {
    let mut ground = Ground::new().await;
    let topic = format!("{}provider", ground.parts.topic_prefix);
    let brokers = ground.parts.kafka.clone().expect("it is set");
    let client = || {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &brokers);
        config
    };
    let admin: AdminClient<DefaultClientContext> = client().create().expect("an admin");
    let new = NewTopic::new(&topic, 2, TopicReplication::Fixed(1));
    admin.create_topics([&new], &AdminOptions::new()).await.expect("the broker is up");
    let producer: BaseProducer = client().create().expect("a producer");
    let captured = |partition: i32, id: &str, order: &str| {
        let value = format!(r#"{{"type":"captured","eventId":"{id}","order":"{order}","by":"card"}}"#);
        let record = BaseRecord::to(&topic).partition(partition).key(order).payload(&value);
        producer.send(record).map_err(|(error, _)| error).expect("there is room");
        producer.flush(PATIENCE).expect("the broker is up");
    };

    ground.parts.payments_topic = Some(topic.clone());
    let (url, _serving) = ground.serve().await;
    let http = reqwest::Client::new();
    let (first, second) = (place(&http, &url).await, place(&http, &url).await);
    captured(0, "E-1", &first);
    // Repeated, also in the other partition, and a type that the service does not know.
    captured(0, "E-1", &first);
    captured(1, "E-1", &first);
    let unknown =
        BaseRecord::<str, str>::to(&topic).partition(1).key(&second).payload(r#"{"type":"viewed","eventId":"E-2"}"#);
    producer.send(unknown).map_err(|(error, _)| error).expect("there is room");
    captured(1, "E-3", &second);

    let consuming =
        ground.start(fulfilment::PARTS.into_iter().chain([PaymentProvider::NAME, es_core::service::RELAY])).await;
    let paid = async {
        for order in [&first, &second] {
            while status(&ground.service, order).await != Some(Status::PaymentOk) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, paid).await.expect("they are paid");
    let status = consuming.status().await;
    let part = status.part(PaymentProvider::NAME).expect("it is registered");
    assert_eq!((part.position, part.lag, part.parked_keys, part.dead_letters), (None, None, Some(0), Some(0)));
    assert!(status.stopped().is_empty(), "{:?}", status.stopped());
    consuming.shutdown(Duration::from_secs(10)).await.expect("it ends in time");
}
