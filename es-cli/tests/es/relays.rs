//! `es relay`, on a relay that has published the log.

use std::{fs, process::Command, time::Duration};

use es_core::Position;
use es_kafka::{Relay, RelayConfig};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::fixture::{Place, Run, es, run};

const PATIENCE: Duration = Duration::from_mins(1);

fn brokers() -> String {
    std::env::var("KAFKA_BROKERS").expect("these tests need a broker: set KAFKA_BROKERS, or run `cargo xtask test`")
}

/// A prefix that no other test uses, in which everything is published.
fn publish(place: &Place) -> String {
    let prefix = format!("cli{}-", Uuid::now_v7().simple());
    publish_again(place, &prefix);
    prefix
}

fn publish_again(place: &Place, prefix: &str) {
    place.runtime.block_on(async {
        let store = place.store().await;
        let head = store.head().await.unwrap();
        let config = RelayConfig { topic_prefix: prefix.to_owned(), ..RelayConfig::new(brokers(), "orders") };
        let (relay, shutdown) = (Relay::new(store.clone(), config), CancellationToken::new());
        let mut published = relay.published();
        let stops = shutdown.clone();
        let running = tokio::spawn(async move { relay.run(stops).await });
        let reached = published.wait_for(|position: &Position| *position >= head);
        tokio::time::timeout(PATIENCE, reached).await.unwrap().unwrap();
        shutdown.cancel();
        running.await.unwrap().unwrap();
        store.close().await.unwrap();
    });
}

fn on_kafka(place: &Place, prefix: &str) -> Command {
    let mut es = place.command();
    es.env("ES_KAFKA_BROKERS", brokers()).env("ES_KAFKA_RELAY", "orders").env("ES_KAFKA_TOPIC_PREFIX", prefix);
    es
}

fn relay(place: &Place, prefix: &str, arguments: &[&str]) -> Run {
    run(on_kafka(place, prefix).arg("relay").args(arguments))
}

#[test]
fn the_status_of_a_relay_is_shown() {
    for place in Place::filled() {
        let prefix = publish(&place);
        let status = &relay(&place, &prefix, &["status", "--json"]).json()[0];
        assert_eq!((&status["position"], &status["head"], &status["lagEvents"]), (&json!(10), &json!(10), &json!(0)));
        assert_eq!((&status["relay"], &status["findings"]), (&json!("orders"), &json!([])));
        let topics: Vec<_> = status["topics"].as_array().unwrap().iter().map(|topic| &topic["topic"]).collect();
        let named = ["order-events", "payment-events", "relay-progress"].map(|name| json!(format!("{prefix}{name}")));
        assert_eq!(topics, named.iter().collect::<Vec<_>>());
        let text = relay(&place, &prefix, &["status"]);
        assert_eq!(text.code, 0, "{}", text.err);
        assert!(text.out.contains("position 10 of 10") && text.out.contains("for ever"), "{}", text.out);
        let none = relay(&place, &format!("{prefix}other-"), &["status"]);
        assert_eq!((none.code, none.out.contains("there is no progress of the relay")), (5, true), "{}", none.out);
    }
}

#[test]
fn r10_a_comparison_continues_where_its_file_says_and_tells_the_first_difference() {
    for place in Place::filled() {
        let prefix = publish(&place);
        let state = place.directory.path().join("state.json");
        let state = state.to_str().unwrap();
        let compared = |run: &Run| run.lines().pop().unwrap();
        let from_to = |run: &Run| {
            let line = compared(run);
            (run.code, line["from"].as_u64().unwrap(), line["position"].as_u64().unwrap())
        };
        let first = relay(&place, &prefix, &["reconcile", "--state", state, "--json"]);
        assert_eq!(from_to(&first), (0, 0, 10), "{}", first.err);
        assert_eq!((&compared(&first)["violation"], &compared(&first)["events"]), (&Value::Null, &json!(10)));
        assert!(!fs::exists(format!("{state}.new")).unwrap());
        let kept: Value = serde_json::from_str(&fs::read_to_string(state).unwrap()).unwrap();
        assert_eq!(kept["position"], 10);
        let second = relay(&place, &prefix, &["reconcile", "--state", state, "--json"]);
        assert_eq!(from_to(&second), (0, 10, 10));
        let whole = relay(&place, &prefix, &["reconcile", "--state", state, "--from-start", "--json"]);
        assert_eq!(from_to(&whole), (0, 0, 10));
        let text = relay(&place, &prefix, &["reconcile"]);
        assert_eq!(
            (text.code, text.out.starts_with("Kafka holds the log up to position 10: 10 events")),
            (0, true),
            "{}",
            text.out
        );

        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers()).create().unwrap();
        let topic = format!("{prefix}order-events");
        producer.send(BaseRecord::to(&topic).partition(0).key("order-1").payload("geheim")).unwrap();
        producer.flush(PATIENCE).unwrap();
        let differs = relay(&place, &prefix, &["reconcile", "--state", state, "--json"]);
        assert_eq!(from_to(&differs), (1, 10, 10), "{}", differs.err);
        let violation = &compared(&differs)["violation"];
        assert_eq!((&violation["kind"], &violation["topic"]), (&json!("foreign"), &json!(topic)));
        let sentence = violation["sentence"].as_str().unwrap();
        assert!(sentence.contains("is foreign") && !differs.out.contains("geheim"), "{sentence}");

        fs::write(state, "no json").unwrap();
        assert_eq!(relay(&place, &prefix, &["reconcile", "--state", state]).code, 2);
    }
}

#[test]
fn kafka_that_is_not_there_or_not_named_has_an_exit_code() {
    let [place, _] = Place::filled();
    let unnamed = place.es(&["relay", "status"]);
    assert_eq!((unnamed.code, unnamed.err.contains("--brokers")), (2, true), "{}", unnamed.err);
    let refused = run(on_kafka(&place, "x-").env("ES_KAFKA_SASL_PASWORD", "geheim").args(["relay", "status"]));
    assert_eq!((refused.code, refused.err.contains("sasl.pasword")), (4, true), "{}", refused.err);
    assert!(!refused.err.contains("geheim"), "{}", refused.err);
}

/// Seen to fail for `order-service`, whose help told the URL of the store.
#[test]
fn r14_no_help_shows_the_environment() {
    for command in [
        &["--help"][..],
        &["relay", "--help"],
        &["relay", "reconcile", "--help"],
        &["dlq", "--help"],
        &["dlq", "replay", "--help"],
        &["readers", "--help"],
        &["skip", "-h"],
    ] {
        let mut es = es();
        for name in [
            "ES_URL",
            "ES_SCHEMA",
            "ES_ACTOR",
            "DATABASE_URL",
            "ES_KAFKA_BROKERS",
            "ES_KAFKA_RELAY",
            "ES_KAFKA_TOPIC",
            "ES_KAFKA_CONFIG",
        ] {
            es.env(name, "geheim");
        }
        let help = run(es.args(command));
        assert_eq!((help.code, help.out.contains("geheim")), (0, false), "{}", help.out);
    }
}
