//! Clients that are not let in, or do not trust the broker: what they say is the cause, and no password.

use std::time::{Duration, Instant};

use es_core::{MemoryStore, error::with_causes};
use es_kafka::{KafkaSource, KafkaSourceConfig, RelayError, Settings};

use crate::{
    broker::{Broker, Listener, Mechanism, password},
    rights::{Role, publish, refused},
};

/// What relay and reader say that are refused for the same reason.
async fn told(address: &str, settings: &Settings, prefix: &str) -> [String; 2] {
    let began = Instant::now();
    let refused_relay = publish(MemoryStore::new(), address.to_owned(), settings.clone(), prefix).await;
    let error = refused_relay.expect_err("it is not let in");
    assert!(matches!(error, RelayError::Refused { .. }), "{error:?}");
    let config = KafkaSourceConfig { settings: settings.clone(), ..KafkaSourceConfig::new(address, "orders") };
    let reader = refused(&KafkaSource::new(config), "order", "reader").await.expect("it is not let in");
    assert!(began.elapsed() < Duration::from_secs(45), "{:?}", began.elapsed());
    let told = [with_causes(&error), reader];
    assert!(told.iter().all(|told| !told.contains("geheim")), "{told:?}");
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn r14_who_is_not_let_in_is_told_why_and_never_by_the_password() {
    let scram = [("relay", Mechanism::Scram256), ("relay", Mechanism::Scram512)];
    let Some(broker) = Broker::start(&["relay"], &scram).await else { return };
    broker.grant(Role::Relay.rights().into_iter().map(|right| ("relay".to_owned(), right)));
    let good = broker.address(Listener::Good);
    let mut wrong = Vec::new();
    let mut check = |what: String, says: &str, told: [String; 2]| {
        wrong.extend(told.iter().filter(|told| !told.contains(says)).map(|told| format!("{what}: {says}: {told}")));
    };
    for mechanism in Mechanism::ALL {
        let mut settings = broker.settings("relay", mechanism);
        settings.insert("sasl.password", password("relay") + "!");
        check(format!("password {mechanism:?}"), "credentials", told(&good, &settings, "shop.").await);
    }
    let mut settings = broker.settings("relay", Mechanism::Plain);
    settings.insert("ssl.ca.location", broker.authority().replace("ca.pem", "other-ca.pem"));
    check("authority".to_owned(), "ssl.ca.location", told(&good, &settings, "shop.").await);
    let settings = broker.settings("relay", Mechanism::Plain);
    for (listener, says) in [(Listener::Expired, "expired"), (Listener::OtherHost, "name the host")] {
        check(format!("{listener:?}"), says, told(&broker.address(listener), &settings, "shop.").await);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
