//! What no waiting mends ends a relay and a reader with an error that says what does.

use std::{error::Error, time::Instant};

use es_core::{
    EventOrder, WorkerState,
    backend::{Categories, EventSource, SourceError, Split, Subscription},
};
use es_kafka::{KafkaSource, KafkaSourceConfig, Relay, RelayConfig, RelayError};

use uuid::Uuid;

use crate::{
    reader::Reader,
    setup::{House, PATIENCE, Running, brokers},
};

/// The end of a relay that cannot work, and what its error says.
async fn end_of(house: &House, config: RelayConfig) -> String {
    house.append("order", "a", 1).await;
    let relay = Relay::new(house.store.clone(), config);
    let state = relay.state();
    let ended = Running::start(relay).ends().await;
    let Err(error @ RelayError::Refused { .. }) = ended else { panic!("{ended:?}") };
    assert!(matches!(&*state.borrow(), WorkerState::Stopped { .. }), "{:?}", state.borrow());
    assert!(error.source().is_some());
    error.to_string()
}

/// Able to lose: before errors were classified by code it tried again for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_timeout_above_the_brokers_ends_the_relay() {
    let house = House::new();
    let mut config = house.config();
    // The brokers allow 15 minutes.
    config.settings.insert("transaction.timeout.ms", "1000000");
    let told = end_of(&house, config).await;
    assert!(told.contains("transaction.max.timeout.ms"), "{told}");
}

/// Able to lose: before errors were classified by code it tried again for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_with_an_impossible_name_ends_the_relay() {
    let house = House::new();
    let config = RelayConfig { topic_prefix: format!("{}not a topic.", house.prefix), ..house.config() };
    let told = end_of(&house, config).await;
    assert!(told.contains("topic_prefix"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_property_that_does_not_exist_ends_relay_and_reader_and_is_named_without_its_value() {
    let house = House::new();
    let mut config = house.config();
    config.settings.insert("sasl.pasword", "secret");
    let settings = config.settings.clone();
    let told = end_of(&house, config).await;
    assert!(told.contains("sasl.pasword") && !told.contains("secret"), "{told}");

    let source = KafkaSource::new(KafkaSourceConfig { settings, ..house.source_config() });
    let reader = "reader".to_owned();
    let subscription = Subscription {
        reader,
        store: Uuid::nil(),
        categories: Categories::All,
        order: EventOrder::PerStream,
        split: Split::NONE,
        forwards: false,
    };
    let refused = source.open(&subscription).await.map(drop).unwrap_err();
    assert!(!refused.is_transient() && matches!(refused, SourceError::Refused { .. }), "{refused:?}");
    assert!(refused.to_string().contains("sasl.pasword") && !format!("{refused:?}").contains("secret"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_that_do_not_fit_together_end_a_merged_reader() {
    let house = House::new();
    let mut config = house.source_config();
    config.settings.insert("max.poll.interval.ms", "1000");
    let refused = Reader::refused_at_once(config, Categories::All, EventOrder::PerKey).await;
    assert!(matches!(refused, SourceError::Refused { .. }), "{refused:?}");
}

/// A client that speaks TLS to a broker that does not is a question of settings too, but shows up as a lost
/// connection: it is tried again, since a broker that is restarted looks the same.
#[tokio::test(flavor = "multi_thread")]
async fn tls_is_compiled_in() {
    let house = House::new();
    let mut config = KafkaSourceConfig { ..KafkaSourceConfig::new(brokers(), "relay") };
    config.settings.insert("security.protocol", "SASL_SSL");
    config.settings.insert("sasl.mechanism", "SCRAM-SHA-512");
    config.settings.insert("sasl.username", "orders");
    config.settings.insert("sasl.password", "secret");
    config.topic_prefix = house.prefix.clone();
    let reader = "reader".to_owned();
    let subscription = Subscription {
        reader,
        store: Uuid::nil(),
        categories: Categories::All,
        order: EventOrder::PerStream,
        split: Split::NONE,
        forwards: false,
    };
    let asked = Instant::now();
    let failed = KafkaSource::new(config).open(&subscription).await.map(drop).unwrap_err();
    assert!(failed.is_transient() && asked.elapsed() < PATIENCE, "{failed:?}");
}

/// Its topics are the relay's: nothing else is written to them.
#[tokio::test]
async fn r11_a_reader_of_topics_that_a_relay_fills_forwards_nothing() {
    let subscription = Subscription {
        reader: "reader".into(),
        store: Uuid::nil(),
        categories: Categories::All,
        order: EventOrder::PerStream,
        split: Split::NONE,
        forwards: true,
    };
    let source = KafkaSource::new(KafkaSourceConfig::new(brokers(), "relay"));
    let refused = source.open(&subscription).await.map(drop).unwrap_err();
    assert!(matches!(refused, SourceError::CannotForward), "{refused:?}");
}
