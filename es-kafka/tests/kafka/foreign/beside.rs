//! The topics beside a topic, while others create, change and empty them.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use es_core::{Act, EngineError, Operations, backend::SourceError};
use es_kafka::KafkaTopic;
use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication},
};
use tokio::sync::Notify;

use super::{
    forward::DELAY,
    picky::{reaches, records, retry, start},
    setup::Foreign,
};
use crate::setup::{House, PATIENCE, admin};

/// Changes settings of a topic. The others get back their defaults, by which records are deleted after a week.
async fn set(topic: &str, settings: &[(&str, &str)]) {
    let changed = AlterConfig::new(ResourceSpecifier::Topic(topic));
    let changed = settings.iter().fold(changed, |changed, (name, value)| changed.set(name, value));
    admin().alter_configs([&changed], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
}

/// Deletes the records of partition 0 before `offset`.
async fn delete_before(topic: &str, offset: i64) {
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(topic, 0, Offset::Offset(offset)).unwrap();
    admin().delete_records(&before, &AdminOptions::new()).await.unwrap();
}

fn remedy(ended: EngineError) -> String {
    let EngineError::Source(SourceError::Refused { remedy, .. }) = ended else { panic!("{ended:?}") };
    remedy
}

/// By another process, or by hand.
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_retry_topic_that_is_created_while_the_consumer_runs_is_read() {
    let foreign = Foreign::new(1).await;
    let running = start(&foreign, foreign.source().check_topics_every(DELAY), |_, _| false, |it| it);
    foreign.pay(0, "a", 1, 1);
    reaches(&foreign, "picky", foreign.shard(0), 1).await;
    let first = format!("{}.retry.1", foreign.topic);
    House::new().create_topic(&first, 1).await;
    let value = r#"{"type":"captured","id":2,"account":"a","cents":2}"#;
    foreign.send_to(&first, 0, Some("a"), &[("handler", "picky")], Some(value));
    running.seen.has(2, 1).await;
    foreign.pay(0, "a", 3, 3);
    reaches(&foreign, "picky", foreign.shard(0), 2).await;
    assert_eq!((foreign.balance("a").await, running.seen.amounts()), (6, vec![1, 2, 3]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_a_topic_that_deletes_what_waits_in_it_stops_the_consumer_while_it_runs_and_when_it_starts() {
    let forever = ("retention.ms", "-1");
    for (topic, settings) in [
        ("retry.1", &[("cleanup.policy", "compact")][..]),
        ("retry.1", &[("retention.ms", "60000")]),
        ("retry.1", &[("retention.bytes", "1000000"), forever]),
        ("retry.1", &[("unclean.leader.election.enable", "true"), forever]),
        ("dlq", &[("cleanup.policy", "compact,delete"), forever]),
        ("dlq", &[("retention.ms", "1209600000")]),
        ("dlq", &[("retention.bytes", "1000000"), forever]),
        ("dlq", &[("unclean.leader.election.enable", "true"), forever]),
    ] {
        let foreign = Foreign::new(1).await;
        let source = || foreign.source().retry_after([Duration::from_mins(1)]).check_topics_every(DELAY);
        let running = start(&foreign, source(), |_, _| false, |it| it);
        foreign.pay(0, "a", 1, 1);
        reaches(&foreign, "picky", foreign.shard(0), 1).await;
        let (name, setting) = (format!("{}.{topic}", foreign.topic), settings[0].0);
        set(&name, settings).await;
        let again = |ended: EngineError| {
            let remedy = remedy(ended);
            assert!(remedy.contains(setting), "{topic} {settings:?}: {remedy}");
        };
        again(running.ends().await.unwrap_err());
        again(start(&foreign, source(), |_, _| false, |it| it).ends().await.unwrap_err());
        if settings == [("retention.ms", "1209600000")] {
            let declared = source().keep_dead_letters(Duration::from_hours(14 * 24));
            let running = start(&foreign, declared, |_, _| false, |it| it);
            foreign.pay(0, "a", 2, 2);
            reaches(&foreign, "picky", foreign.shard(0), 2).await;
            running.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_topic_that_is_created_keeps_letters_for_as_long_as_is_declared() {
    let foreign = Foreign::new(1).await;
    let source = foreign.source().keep_dead_letters(Duration::from_hours(24));
    let running = start(&foreign, source, |_, _| false, |it| it);
    foreign.pay(0, "a", 1, 1);
    reaches(&foreign, "picky", foreign.shard(0), 1).await;
    let dead = format!("{}.dlq", foreign.topic);
    let found = admin().describe_configs([&ResourceSpecifier::Topic(&dead)], &AdminOptions::new()).await.unwrap();
    let settings = found.into_iter().next().unwrap().unwrap();
    let kept = ["retention.ms", "cleanup.policy"].map(|name| settings.get(name).unwrap().value.clone().unwrap());
    assert_eq!(kept, ["86400000", "delete"]);
    running.stop().await;
}

/// What waits there is a message that was given up nowhere else.
#[tokio::test(flavor = "multi_thread")]
async fn r11_records_of_a_retry_topic_that_are_gone_before_they_were_handled_stop_the_consumer() {
    let foreign = Foreign::new(1).await;
    let source = |delay| foreign.source().retry_after([delay]);
    foreign.pay(0, "a", 1, 1);
    foreign.pay(0, "a", 2, 2);
    let running = start(&foreign, source(Duration::from_hours(1)), |_, _| true, |it| it);
    let first = format!("{}.retry.1", foreign.topic);
    records(first.clone(), 2).await;
    running.stop().await;
    delete_before(&first, 1).await;
    let stopped = start(&foreign, source(DELAY), |_, _| false, |it| it).ends().await.unwrap_err();
    let EngineError::Source(SourceError::Expired { place }) = &stopped else { panic!("{stopped:?}") };
    assert_eq!(*place, format!("{first}/0 offset 0"));
    // An operator has seen what is lost.
    let running = start(&foreign, source(DELAY).pass_lost_records(), |_, _| false, |it| it);
    reaches(&foreign, "picky", retry(&foreign, 1, 0), 2).await;
    assert_eq!((foreign.balance("a").await, running.seen.amounts()), (2, vec![2]));
    running.stop().await;
}

/// Its topic has deleted it between the attempts and the forwarding. It is an event at which the consumer has stopped, so an operator can
/// skip it.
#[tokio::test(flavor = "multi_thread")]
async fn r11_r22_a_record_that_is_gone_when_it_is_to_be_forwarded_stops_the_consumer_until_it_is_skipped() {
    let foreign = Foreign::new(1).await;
    foreign.pay(0, "a", 1, 1);
    foreign.pay(0, "b", 2, 2);
    let (tried, (go, waits)) = (Arc::new(Notify::new()), mpsc::channel());
    let (tells, waits) = (tried.clone(), Mutex::new(waits));
    let refuses = move |amount, before| {
        if (amount, before) == (1, 1) {
            tells.notify_one();
            tokio::task::block_in_place(|| waits.lock().unwrap().recv_timeout(PATIENCE).unwrap());
        }
        amount == 1
    };
    let running = start(&foreign, foreign.source(), refuses, |it| it);
    tokio::time::timeout(PATIENCE, tried.notified()).await.expect("it is tried for the last time");
    delete_before(&foreign.topic, 1).await;
    go.send(()).unwrap();
    let stopped = running.ends().await.unwrap_err();
    let EngineError::NotForwarded { reason: SourceError::Expired { place }, .. } = &stopped else {
        panic!("{stopped:?}")
    };
    assert_eq!(*place, format!("{}/0 offset 0", foreign.topic));
    let again = start(&foreign, foreign.source(), |_, _| false, |it| it).ends().await.unwrap_err();
    assert!(
        matches!(&again, EngineError::Source(SourceError::Expired { .. })),
        "it is not passed by itself: {again:?}"
    );

    let stop = foreign.store.stops("picky").await.unwrap().remove(0);
    assert_eq!((&stop.shard, stop.position.get()), (&foreign.shard(0), 1));
    let act = Act::new("ada", "the customer was told").unwrap();
    foreign.store.skip("picky", &stop.shard, stop.position, stop.event_id, &act).await.unwrap();
    let running = start(&foreign, foreign.source(), |_, _| false, |it| it);
    reaches(&foreign, "picky", foreign.shard(0), 2).await;
    assert_eq!([foreign.balance("a").await, foreign.balance("b").await], [0, 2]);
    running.stop().await;
}

/// A topic of the operator's own making is as good as one of ours.
#[tokio::test(flavor = "multi_thread")]
async fn topics_that_are_made_by_hand_and_keep_what_waits_are_used() {
    let foreign = Foreign::new(1).await;
    let [first, dead] = ["retry.1", "dlq"].map(|kind| format!("{}.{kind}", foreign.topic));
    let new = [
        NewTopic::new(&first, 1, TopicReplication::Fixed(1)).set("retention.ms", "86400000"),
        NewTopic::new(&dead, 1, TopicReplication::Fixed(1)).set("retention.ms", "-1"),
    ];
    for created in admin().create_topics(&new, &AdminOptions::new()).await.unwrap() {
        created.unwrap();
    }
    let source: KafkaTopic = foreign.source().retry_after([DELAY]).create_topics(false);
    let running = start(&foreign, source, |amount, _| amount == 1, |it| it);
    foreign.pay(0, "a", 1, 1);
    records(dead, 1).await;
    running.stop().await;
}
