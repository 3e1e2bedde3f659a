//! Records that a consumer cannot handle go to retry topics, and at last to a dead-letter topic.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use es_core::{
    ConsumerRunner, DeadLetters, EngineError, LetterPage, MemoryStore, Operations, UnknownTypes, backend::SourceError,
};
use es_kafka::{KafkaTopic, RecordField, TopicStart};
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use tokio::sync::Notify;

use super::{
    picky::{Hangs, Picky, Running, Seen, forwards, leases, owners, reached, reaches, records, retry, run, start},
    setup::Foreign,
};
use crate::setup::{PATIENCE, admin, brokers};

/// Long enough for others to overtake a record that waits.
pub(super) const DELAY: Duration = Duration::from_millis(200);

/// Seen to fail where the wait is left out: it was handled again at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_fails_is_handled_again_after_the_delay_and_others_go_on_meanwhile() {
    let foreign = Foreign::new(2).await;
    foreign.pay(1, "a", 1, 1);
    foreign.pay(1, "a", 2, 2);
    let source = foreign.source().retry_after([Duration::from_secs(1)]);
    let running = start(&foreign, source, |amount, before| amount == 1 && before < 2, |it| it);
    running.seen.has(1, 3).await;
    reaches(&foreign, "picky", retry(&foreign, 1, 1), 1).await;
    assert_eq!(running.seen.amounts(), [1, 1, 2, 1], "the next one of the key does not wait");
    let kept = records(format!("{}.retry.1", foreign.topic), 1).await.remove(0);
    let (due, at) = (kept.time("retry-after"), running.seen.at(1, 2));
    assert!(at >= due && due >= running.seen.at(1, 1) + Duration::from_secs(1), "{at} is before {due}");
    assert_eq!((kept.partition, kept.key.as_deref()), (1, Some("a")));
    assert_eq!(["retry-count", "attempts", "original-partition"].map(|name| kept.header(name)), ["1", "2", "1"]);
    assert_eq!(foreign.balance("a").await, 3);
    running.stop().await;
}

/// The end of another topic's partition of the same number says nothing of a record that waits. (Seen to fail where it moves the
/// checkpoint past it.)
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_record_that_waits_is_not_passed_whatever_ends_meanwhile() {
    let foreign = Foreign::new(1).await;
    foreign.pay(0, "a", 1, 1);
    let source = foreign.source().retry_after([Duration::from_hours(1)]);
    let running = start(&foreign, source, |amount, _| amount == 1, |it| it);
    records(format!("{}.retry.1", foreign.topic), 1).await;
    for nth in 2..30 {
        foreign.pay(0, "a", nth, nth);
        reaches(&foreign, "picky", foreign.shard(0), nth).await;
    }
    running.stop().await;
    assert_eq!(reached(&foreign, "picky", &retry(&foreign, 1, 0)).await, 0);
}

/// The record is as it was, with its own headers and what is added, exactly.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_fails_after_each_delay_is_in_the_dead_letter_topic_with_its_story() {
    let foreign = Foreign::new(1).await;
    let began = Utc::now();
    foreign.pay(0, "a", 1, 1);
    let value = r#"{"type":"captured","id":2,"account":"a","cents":2}"#;
    // Headers that have the names of ours are the record's own.
    let own = [("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), ("attempts", "many")];
    foreign.send(0, Some("a"), &own, Some(value));
    let delays = [DELAY / 4, DELAY / 2];
    let running = start(&foreign, foreign.source().retry_after(delays), |amount, _| amount == 2, |it| it);
    let kept = records(format!("{}.dlq", foreign.topic), 1).await.remove(0);
    let ended = Utc::now();
    assert_eq!((kept.key.as_deref(), kept.value.as_deref()), (Some("a"), Some(value)));
    let at = |name: &str| kept.headers.iter().rposition(|(key, _)| key == name).unwrap();
    let times = [at("original-timestamp"), at("failed-at")];
    let (written, failed_at) = (kept.header("original-timestamp").parse::<i64>().unwrap(), kept.time("failed-at"));
    assert!(began.timestamp_millis() <= written && written <= failed_at.timestamp_millis() && failed_at <= ended);
    let rest = kept.headers.iter().enumerate().filter(|(place, _)| !times.contains(place));
    let rest: Vec<_> = rest.map(|(_, (key, value))| (key.as_str(), value.as_str())).collect();
    let message = "no reaction to payment-a@2 at position 1: a reaction failed: hunter2";
    let ours = [
        ("handler", "picky"),
        ("original-topic", foreign.topic.as_str()),
        ("original-partition", "0"),
        ("original-offset", "1"),
        ("attempts", "6"),
        ("error-class", "refused"),
        ("error-message", message),
        ("retry-count", "2"),
    ];
    assert_eq!(rest, own.into_iter().chain(ours).collect::<Vec<_>>());
    reaches(&foreign, "picky", retry(&foreign, 2, 0), 1).await;
    assert_eq!(running.seen.amounts(), [1, 2, 2, 2, 2, 2, 2]);
    running.stop().await;
    assert!(foreign.store.dead_letters("picky", &LetterPage::first(9)).await.unwrap().is_empty());
    assert_eq!(foreign.balance("a").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_delay_a_record_goes_to_the_dead_letter_topic_at_once() {
    let foreign = Foreign::new(1).await;
    foreign.pay(0, "a", 1, 1);
    foreign.pay(0, "a", 2, 2);
    let running = start(&foreign, foreign.source(), |amount, _| amount == 1, |it| it);
    reaches(&foreign, "picky", foreign.shard(0), 2).await;
    assert_eq!(running.seen.amounts(), [1, 1, 2]);
    let kept = records(format!("{}.dlq", foreign.topic), 1).await.remove(0);
    assert_eq!((kept.header("attempts"), kept.header("retry-count")), ("2", "0"));
    running.stop().await;
}

/// A crash in between forwards the record twice. Both are the same message: the inbox knows the second one. (Seen to fail where the
/// record's place in the retry topic makes its id, as it would in any other topic: the balance was 10.)
#[tokio::test(flavor = "multi_thread")]
async fn r9_a_record_that_a_crash_forwards_twice_is_handled_once_in_effect() {
    let foreign = Foreign::new(1).await;
    // Nothing identifies it but its first place.
    let source = || KafkaTopic::new(brokers(), &*foreign.topic).named_by(RecordField::json("/type"));
    // The second one is forwarded before the first one is due.
    let source = || source().retry_after([Duration::from_secs(4)]);
    foreign.pay(0, "a", 1, 5);
    let refuses = |_, before| before < 2;
    let has_taken = Arc::new(Notify::new());
    let killed = start(&foreign, Hangs { topic: source(), has_taken: has_taken.clone() }, refuses, |it| it);
    tokio::time::timeout(PATIENCE, has_taken.notified()).await.expect("it is forwarded");
    killed.task.abort();
    let running = start(&foreign, source(), refuses, |it| it);
    records(format!("{}.retry.1", foreign.topic), 2).await;
    reaches(&foreign, "picky", retry(&foreign, 1, 0), 2).await;
    assert_eq!(foreign.balance("a").await, 5);
    assert_eq!(running.seen.amounts(), [5, 5, 5], "the second one is passed over");
    running.stop().await;
}

/// No delay makes them readable or known.
#[tokio::test(flavor = "multi_thread")]
async fn r11_what_cannot_be_read_or_is_not_known_goes_to_the_dead_letter_topic_at_once() {
    let foreign = Foreign::new(1).await;
    foreign.send(0, Some("a"), &[], Some("hunter2"));
    foreign.send(0, Some("a"), &[], Some(r#"{"type":"refunded","id":1}"#));
    foreign.send(0, Some("a"), &[], Some(r#"{"type":"captured","id":2}"#));
    foreign.pay(0, "a", 4, 4);
    let source = foreign.source().retry_after([DELAY]);
    let running = start(&foreign, source, |_, _| false, |runner| runner.unknown_types(UnknownTypes::Park));
    reaches(&foreign, "picky", foreign.shard(0), 4).await;
    let kept = records(format!("{}.dlq", foreign.topic), 3).await;
    let told: Vec<_> = kept.iter().map(|kept| (kept.header("error-class"), kept.header("attempts"))).collect();
    assert_eq!(told, [("unreadable", "1"), ("unknown-type", "1"), ("undecodable", "1")]);
    assert_eq!(kept[0].value.as_deref(), Some("hunter2"), "it is as it was");
    assert!(kept.iter().all(|kept| !kept.header("error-message").contains("hunter2")));
    assert_eq!((foreign.balance("a").await, reached(&foreign, "picky", &retry(&foreign, 1, 0)).await), (4, 0));
    running.stop().await;
}

/// Without an inbox, which would know it. Seen to fail where the header `handler` is not looked at: the other consumer handled the
/// record a second time.
#[tokio::test(flavor = "multi_thread")]
async fn consumers_that_share_retry_topics_pass_over_what_the_other_one_is_to_handle() {
    let foreign = Foreign::new(1).await;
    let source = || foreign.source().retry_after([DELAY]);
    let no_inbox = |runner: ConsumerRunner<Picky<false>>| runner.inbox(Duration::ZERO);
    let first = start(&foreign, source(), |amount, before| amount == 1 && before < 2, no_inbox);
    let seen = Seen::default();
    let refuses = Box::new(|amount, before| amount == 2 && before < 2);
    let other = Foreign { topic: foreign.topic.clone(), ..Foreign::new(1).await };
    let picky = Picky::<true> { seen: seen.clone(), refuses, of: other.payments() };
    let second = ConsumerRunner::new(picky, source(), other.store.clone()).on_failure(forwards()).inbox(Duration::ZERO);
    let second = run(second, seen);
    for amount in 1..=3 {
        foreign.pay(0, "a", amount, amount);
    }
    first.seen.has(1, 3).await;
    second.seen.has(2, 3).await;
    reaches(&foreign, "picky", retry(&foreign, 1, 0), 2).await;
    reaches(&other, "other", retry(&foreign, 1, 0), 2).await;
    let sorted = |running: &Running| {
        let mut amounts = running.seen.amounts();
        amounts.sort_unstable();
        amounts
    };
    assert_eq!((sorted(&first), sorted(&second)), (vec![1, 1, 1, 2, 3], vec![1, 2, 2, 2, 3]));
    first.stop().await;
    second.stop().await;
}

/// What waits is waited for by the next member of the group, from its checkpoint. Where the second one came too late, it is tried with
/// a longer delay.
#[tokio::test(flavor = "multi_thread")]
async fn r9_a_record_that_waits_is_handled_once_by_whichever_member_has_its_partition_then() {
    for seconds in [3, 12, 48] {
        let (foreign, delay) = (Foreign::new(2).await, Duration::from_secs(seconds));
        let source = || foreign.source().retry_after([delay]);
        foreign.pay(0, "a", 1, 1);
        foreign.pay(1, "b", 2, 2);
        let refuses = |_, before| before < 2;
        let first = start(&foreign, source(), refuses, |it| it);
        let kept = records(format!("{}.retry.1", foreign.topic), 2).await;
        let due = kept.iter().map(|kept| kept.time("retry-after")).min().unwrap();
        // Which has seen nothing before.
        let second = start(&foreign, source(), |_, _| false, |it| it);
        owners(&foreign, "picky", 2).await;
        let was_early = Utc::now() < due;
        if was_early {
            first.task.abort();
            owners(&foreign, "picky", 1).await;
        }
        for partition in 0..2 {
            reaches(&foreign, "picky", retry(&foreign, 1, partition), 1).await;
        }
        assert!(Utc::now() >= due);
        assert_eq!([foreign.balance("a").await, foreign.balance("b").await], [1, 2]);
        second.stop().await;
        if was_early {
            return;
        }
    }
    panic!("the second member is never there before the records are due");
}

/// Seen to fail where the thread does not tell that it waits: the clients were replaced each time, and the record waited anew.
#[tokio::test(flavor = "multi_thread")]
async fn r18_a_consumer_that_waits_is_not_taken_for_dead() {
    let foreign = Foreign::new(1).await;
    let source = foreign.source().retry_after([Duration::from_secs(4)]);
    let source = source.source(|config| config.reopen_after = Duration::from_millis(1_200));
    foreign.pay(0, "a", 1, 1);
    let running = start(&foreign, source, |_, before| before < 2, |it| it);
    records(format!("{}.retry.1", foreign.topic), 1).await;
    let before = leases(&foreign, "picky").await;
    reaches(&foreign, "picky", retry(&foreign, 1, 0), 1).await;
    assert_eq!(leases(&foreign, "picky").await, before);
    running.stop().await;
}

/// Also by a consumer without a checkpoint that begins its topic at the end. (Seen to fail where the start of the topic holds for them
/// too, and where only the topics are read that are declared.)
#[tokio::test(flavor = "multi_thread")]
async fn records_that_wait_in_a_topic_that_is_no_longer_declared_are_handled() {
    let foreign = Foreign::new(1).await;
    foreign.pay(0, "a", 1, 1);
    let source = foreign.source().retry_after([DELAY, DELAY]);
    let running = start(&foreign, source, |_, _| true, |it| it);
    records(format!("{}.retry.1", foreign.topic), 1).await;
    running.task.abort();
    // It may have come to the second one meanwhile.
    let foreign = Foreign { store: MemoryStore::new(), ..foreign };
    let running = start(&foreign, foreign.source().start(TopicStart::End), |_, _| false, |it| it);
    running.seen.has(1, 1).await;
    reaches(&foreign, "picky", retry(&foreign, 1, 0), 1).await;
    running.stop().await;
    assert_eq!(foreign.balance("a").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_a_consumer_says_which_topics_are_missing_to_forward() {
    let foreign = Foreign::new(1).await;
    let source = foreign.source().retry_after([DELAY]).create_topics(false);
    let stopped = start(&foreign, source, |_, _| false, |it| it).ends().await.unwrap_err();
    let EngineError::Source(SourceError::Refused { remedy, .. }) = &stopped else { panic!("{stopped:?}") };
    assert!(remedy.contains(&format!("{}.retry.1", foreign.topic)), "{remedy}");
}

/// Nothing is lost: the consumer stops before it, and an operator may skip it.
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_record_that_the_dead_letter_topic_does_not_take_stops_the_consumer() {
    let foreign = Foreign::new(1).await;
    let dead = format!("{}.dlq", foreign.topic);
    let new = NewTopic::new(&dead, 1, TopicReplication::Fixed(1));
    let new = new.set("max.message.bytes", "300").set("retention.ms", "-1");
    admin().create_topics([&new], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    foreign.pay(0, "a", 1, 1);
    foreign.send(0, Some("a"), &[("long", &"x".repeat(1_000))], Some("{}"));
    let stopped = start(&foreign, foreign.source(), |_, _| false, |it| it).ends().await.unwrap_err();
    let EngineError::NotForwarded { reason: SourceError::Refused { remedy, .. }, .. } = &stopped else {
        panic!("{stopped:?}")
    };
    assert!(remedy.contains(&dead) && remedy.contains("max.message.bytes"), "{remedy}");
    assert_eq!(reached(&foreign, "picky", &foreign.shard(0)).await, 1);
    let stops = foreign.store.stops("picky").await.unwrap();
    assert_eq!(stops.iter().map(|stop| stop.position.get()).collect::<Vec<_>>(), [2]);
}
