//! The relay that a service has registered.

use es_cli::{CommandError, Outcome};
use es_core::{
    MemoryStore, ServiceBuilder,
    testing::account::{Account, AccountCommand},
};
use es_kafka::KafkaRelay;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{PATIENCE, accounts, run, run_with};

fn with_relay(store: &MemoryStore, prefix: &str) -> ServiceBuilder {
    let brokers = std::env::var("KAFKA_BROKERS")
        .expect("these tests need a broker: set KAFKA_BROKERS, or run `cargo xtask test`");
    accounts(store).relay(KafkaRelay::new(brokers).topic_prefix(prefix))
}

#[tokio::test]
async fn a_relay_is_examined_with_what_the_service_knows_of_it() {
    let store = MemoryStore::new();
    let prefix = format!("cli{}-", Uuid::now_v7().simple());
    let service = with_relay(&store, &prefix).start().await.unwrap();
    for id in ["a", "b", "a"] {
        service.repository::<Account>().execute(id, AccountCommand::Deposit(1)).await.unwrap();
    }
    service.settled(PATIENCE).await.unwrap();
    service.shutdown(PATIENCE).await.unwrap();

    let (ended, text) = run_with(with_relay(&store, &prefix), &["relay", "reconcile", "--json"]).await;
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((ended.unwrap(), &line["relay"], &line["position"]), (Outcome::Well, &json!("accounts"), &json!(3)));
    let (ended, text) = run_with(with_relay(&store, &prefix), &["relay", "status", "--json"]).await;
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((ended.unwrap(), &line["position"], &line["lagEvents"]), (Outcome::Well, &json!(3), &json!(0)));
    let (ended, _) = run(&store, &["relay", "status"]).await;
    assert!(matches!(&ended, Err(CommandError::Usage { what, .. }) if what.contains("no relay")), "{ended:?}");
}
