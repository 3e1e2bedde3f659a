//! Topics that are not as a relay needs them, from the start or while it runs: each is noticed and named.

use std::time::Duration;

use es_core::backend::{Finding, Severity};
use es_kafka::{Relay, RelayConfig, RelayError, RelayStatus, TopicSettings};
use rdkafka::admin::{AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};

use crate::setup::{House, Running, admin};

async fn create(topic: &str, settings: &[(&str, &str)]) {
    let mut new = NewTopic::new(topic, 3, TopicReplication::Fixed(1));
    for (name, value) in settings {
        new = new.set(name, value);
    }
    admin().create_topics([&new], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
}

async fn set(topic: &str, name: &str, value: &str) {
    let altered = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
    admin().alter_configs([&altered], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
}

/// How a relay of this configuration ends.
async fn end(house: &House, config: RelayConfig) -> RelayError {
    Running::start(Relay::new(house.store.clone(), config)).ends().await.unwrap_err()
}

/// A relay that has published three events and is idle, and looks at its topics all the time.
async fn idle(house: &House) -> Running {
    let last = house.append("order", "a", 3).await.position;
    let config = RelayConfig { check_topics_every: Duration::from_millis(50), ..house.config() };
    let mut relay = Running::start(Relay::new(house.store.clone(), config));
    relay.reaches(last).await;
    relay
}

/// Seen to fail: the relay published and logged a warning.
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_topic_that_deletes_events_is_refused_unless_that_is_declared() {
    for (name, value) in [("retention.ms", "604800000"), ("retention.bytes", "1000000000")] {
        let house = House::new();
        let topic = house.topics().events("order");
        create(&topic, &[(name, value)]).await;
        let last = house.append("order", "a", 3).await.position;
        for declared in [None, Some(2_000_000_000)] {
            let topics = TopicSettings {
                retention: declared.map(Duration::from_millis),
                retention_bytes: declared,
                ..TopicSettings::default()
            };
            let refused = end(&house, RelayConfig { topics, ..house.config() }).await;
            let RelayError::TopicSettings { topic: named, found, remedy } = &refused else { panic!("{refused:?}") };
            assert!(*named == topic && found.contains(name) && found.contains(value), "{refused}");
            assert!(remedy.contains("-1") && remedy.contains("`topics`"), "{refused}");
        }
        let kept = value.parse().unwrap();
        let (retention, retention_bytes) = (Duration::from_millis(kept), Some(kept));
        let topics = TopicSettings { retention: Some(retention), retention_bytes, ..TopicSettings::default() };
        let config = RelayConfig { topics, ..house.config() };
        let mut relay = Running::start(Relay::new(house.store.clone(), config.clone()));
        relay.reaches(last).await;
        relay.stop().await.unwrap();
        let status = RelayStatus::of(&house.store, &config).await.unwrap();
        assert!(!status.findings.iter().any(|finding| finding.severity == Severity::Problem), "{:?}", status.findings);
    }
}

/// Seen to fail: it published.
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_topic_that_a_broker_without_its_events_may_lead_is_refused() {
    let house = House::new();
    house.append("order", "a", 3).await;
    let topic = house.topics().events("order");
    create(&topic, &[("retention.ms", "-1"), ("unclean.leader.election.enable", "true")]).await;
    let refused = end(&house, house.config()).await;
    assert!(matches!(&refused, RelayError::TopicSettings { topic: named, .. } if *named == topic), "{refused:?}");
    assert!(refused.to_string().contains("unclean.leader.election.enable to false"), "{refused}");
}

/// Without its progress a relay cannot start again. Seen to fail: it published.
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_topic_that_deletes_the_progress_is_refused() {
    let house = House::new();
    house.append("order", "a", 3).await;
    create(&house.topics().progress(), &[("cleanup.policy", "delete"), ("retention.ms", "604800000")]).await;
    let refused = end(&house, house.config()).await;
    assert!(
        matches!(&refused, RelayError::TopicSettings { topic, .. } if *topic == house.topics().progress()),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("\"compact\""), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_as_declared_and_what_differs_is_told() {
    let house = House::new();
    let last = house.append("order", "a", 3).await.position;
    let topics = TopicSettings {
        retention: Some(Duration::from_hours(1)),
        retention_bytes: None,
        min_insync_replicas: Some(1),
        max_message_bytes: Some(2_000_000),
        others: [("compression.type".to_owned(), "zstd".to_owned())].into(),
    };
    let config = RelayConfig { topics, partitions: 2, replication: 1, ..house.config() };
    let mut relay = Running::start(Relay::new(house.store.clone(), config.clone()));
    relay.reaches(last).await;
    relay.stop().await.unwrap();
    let status = RelayStatus::of(&house.store, &config).await.unwrap();
    assert_eq!(status.findings, []);
    let created = status.topics.iter().find(|topic| topic.topic == house.topics().events("order")).unwrap();
    assert_eq!((created.partitions, created.retention_ms, created.retention_bytes), (2, Some(3_600_000), Some(-1)));
    assert_eq!((created.max_message_bytes, created.unclean_leader_election), (Some(2_000_000), Some(false)));

    let others = [("compression.type".to_owned(), "lz4".to_owned())].into();
    let topics = TopicSettings { max_message_bytes: Some(3_000_000), others, ..config.topics.clone() };
    let other = RelayConfig { topics, partitions: 3, replication: 2, ..config };
    let findings = RelayStatus::of(&house.store, &other).await.unwrap().findings;
    let found: Vec<_> = findings.iter().map(|finding| finding.found.as_str()).collect();
    for differs in ["max.message.bytes 2000000", "compression.type zstd", "2 partitions, and 3", "replication 1, and 2"]
    {
        assert!(found.iter().any(|found| found.contains(differs)), "{differs}: {found:?}");
    }
    assert!(findings.iter().all(|Finding { severity, .. }| *severity == Severity::Warning), "{findings:?}");
    // It is told, and no reason to stop.
    let mut relay = Running::start(Relay::new(house.store.clone(), other));
    let last = house.append("order", "a", 1).await.position;
    relay.reaches(last).await;
    relay.stop().await.unwrap();
}

/// Seen to fail: a relay did not notice until its next start.
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_setting_that_is_changed_under_an_idle_relay_ends_it() {
    let house = House::new();
    let relay = idle(&house).await;
    set(&house.topics().events("order"), "cleanup.policy", "compact").await;
    let ended = relay.ends().await.unwrap_err();
    assert!(matches!(ended, RelayError::Compacted { .. }), "{ended:?}");
}

/// Seen to fail: a relay did not notice until its next start.
#[tokio::test(flavor = "multi_thread")]
async fn r10_partitions_that_are_added_under_an_idle_relay_end_it() {
    let house = House::new();
    let relay = idle(&house).await;
    let topic = house.topics().events("order");
    admin().create_partitions([&NewPartitions::new(&topic, 5)], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    let ended = relay.ends().await.unwrap_err();
    assert!(matches!(ended, RelayError::Partitions { known: 3, found: 5, .. }), "{ended:?}");
    assert!(ended.to_string().contains(&house.topics().progress()), "it names what to delete: {ended}");
}

/// Seen to fail: a relay did not notice until it published the next event.
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_topic_that_is_deleted_under_an_idle_relay_ends_it() {
    for created_again in [false, true] {
        let house = House::new();
        let topic = house.topics().events("order");
        let relay = idle(&house).await;
        house.delete_topic(&topic).await;
        if created_again {
            house.create_topic(&topic, 3).await;
        }
        let ended = relay.ends().await.unwrap_err();
        assert!(matches!(&ended, RelayError::Rewound { topic: found, .. } if *found == topic), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_a_topic_that_is_deleted_under_a_relay_that_publishes_ends_it() {
    for created_again in [false, true] {
        let house = House::new();
        let topic = house.topics().events("order");
        let last = house.append("order", "a", 3).await.position;
        let mut relay = Running::start(house.relay());
        relay.reaches(last).await;
        house.delete_topic(&topic).await;
        if created_again {
            house.create_topic(&topic, 3).await;
        }
        house.append("order", "a", 1).await;
        let ended = relay.ends().await.unwrap_err();
        assert!(matches!(&ended, RelayError::Rewound { topic: found, .. } if *found == topic), "{ended:?}");
    }
}

/// Nothing else tells how far the relay has come. Seen to fail for an idle one: it did not notice until it published the next event.
#[tokio::test(flavor = "multi_thread")]
async fn r10_the_topic_of_the_progress_that_is_deleted_under_a_relay_ends_it() {
    for is_idle in [false, true] {
        let house = House::new();
        let relay = idle(&house).await;
        house.delete_topic(&house.topics().progress()).await;
        if !is_idle {
            house.append("order", "a", 1).await;
        }
        let ended = relay.ends().await.unwrap_err();
        assert!(matches!(&ended, RelayError::NoProgress { .. }), "{ended:?}");
    }
}
