//! How a relay and its topics are, as an operator is told.

use es_core::{Position, backend::Severity};
use es_kafka::RelayStatus;
use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};

use crate::setup::{House, Running, admin, open_transaction};

async fn status(house: &House) -> RelayStatus {
    RelayStatus::of(&house.store, &house.config()).await.unwrap()
}

async fn set(topic: &str, settings: &[(&str, &str)]) {
    let mut altered = AlterConfig::new(ResourceSpecifier::Topic(topic));
    for (name, value) in settings {
        altered = altered.set(name, value);
    }
    admin().alter_configs([&altered], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_tells_position_lag_and_topics() {
    let house = House::new();
    let last = house.append("order", "a", 5).await.position;
    let before = status(&house).await;
    assert_eq!((before.position, before.head, before.lag_events, before.written_at), (Position::ZERO, last, 5, None));
    assert!(before.findings.iter().any(|finding| finding.found.contains("no progress")), "{before:?}");

    let mut relay = Running::start(house.relay());
    relay.reaches(last).await;
    relay.stop().await.unwrap();
    let now = status(&house).await;
    assert_eq!((now.position, now.head, now.lag_events, now.lag_seconds), (last, last, 0, 0.0));
    assert_eq!(now.transactional_id, format!("{}/relay", house.topics().progress()));
    assert!(now.written_at.is_some() && now.incarnation.is_some());
    let (events, progress) = (&now.topics[0], &now.topics[1]);
    assert_eq!(
        (&events.topic, events.partitions, events.first_partitions),
        (&house.topics().events("order"), 3, Some(3))
    );
    assert_eq!((events.retention_ms, events.retention_bytes), (Some(-1), Some(-1)));
    assert_eq!(
        (events.cleanup_policy.as_deref(), progress.cleanup_policy.as_deref()),
        (Some("delete"), Some("compact"))
    );
    assert!(now.findings.is_empty(), "{:?}", now.findings);

    house.append("order", "a", 2).await;
    let late = status(&house).await;
    assert_eq!((late.position, late.lag_events), (last, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_settings_that_lose_events_are_named_with_their_remedy() {
    let house = House::new();
    let last = house.append("order", "a", 5).await.position;
    let mut relay = Running::start(house.relay());
    relay.reaches(last).await;
    let topic = house.topics().events("order");
    for (settings, severity, says, remedy) in [
        (
            &[("retention.ms", "3600000"), ("retention.bytes", "-1")][..],
            Severity::Problem,
            "retention.ms is 3600000",
            "-1",
        ),
        (&[("retention.ms", "-1"), ("cleanup.policy", "compact")], Severity::Problem, "cleanup.policy", "delete"),
        (&[("retention.ms", "-1"), ("unclean.leader.election.enable", "true")], Severity::Problem, "lacks", "false"),
    ] {
        set(&topic, settings).await;
        let found = status(&house).await.findings;
        let named =
            |finding: &&es_core::backend::Finding| finding.found.contains(says) && finding.found.contains(&topic);
        let finding = found.iter().find(named).unwrap_or_else(|| panic!("{says}: {found:?}"));
        assert_eq!(finding.severity, severity);
        assert!(finding.advice.as_ref().is_some_and(|advice| advice.contains(remedy)), "{finding:?}");
    }
    set(&house.topics().progress(), &[("cleanup.policy", "delete"), ("retention.ms", "1000000")]).await;
    let found = status(&house).await.findings;
    assert!(found.iter().any(|finding| finding.found.contains("deletes the relay's progress")), "{found:?}");
}

/// A wait that may never end is told with its remedy. (It takes as long as the status is patient.)
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_transaction_that_hides_the_progress_is_named() {
    let house = House::new();
    let last = house.append("order", "a", 5).await.position;
    let mut relay = Running::start(house.relay());
    relay.reaches(last).await;
    relay.stop().await.unwrap();
    let progress = house.topics().progress();
    let _open = open_transaction(&progress, 0).await;
    let error = RelayStatus::of(&house.store, &house.config()).await.unwrap_err();
    let text = error.to_string();
    assert!(error.is_transient() && text.contains(&format!("{progress}/0 offset")), "{text}");
    assert!(text.contains("kafka-transactions.sh"), "{text}");
}
