//! What operators do with the records of a dead-letter topic.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use es_core::{Act, ConsumerRunner};
use es_kafka::{DeadLetterError, DeadLetterTopic, DeadRecordFilter, ReplayTo};

use super::{
    forward::DELAY,
    picky::{Picky, Seen, forwards, reaches, records, retry, run, start},
    setup::Foreign,
};
use crate::setup::brokers;

fn dead(foreign: &Foreign) -> DeadLetterTopic {
    DeadLetterTopic::new(brokers(), &*foreign.topic)
}

fn act() -> Act {
    Act::new("ada", "ticket 7").unwrap()
}

async fn offsets(dead: &DeadLetterTopic) -> Vec<i64> {
    let found = dead.list(&DeadRecordFilter::default()).await.unwrap();
    found.iter().map(|record| record.original_offset).collect()
}

/// The other consumer of the topic has no inbox that would know it. One that fails again comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_record_is_replayed_to_its_handler_alone() {
    let foreign = Foreign::new(2).await;
    let source = || foreign.source().retry_after([DELAY / 4]);
    let is_mended = Arc::new(AtomicBool::new(false));
    let mended = is_mended.clone();
    let refuses = move |amount, _| amount == 1 && !mended.load(Ordering::Relaxed);
    let first = start(&foreign, source(), refuses, |it| it);
    let (other, seen) = (Foreign { topic: foreign.topic.clone(), ..Foreign::new(1).await }, Seen::default());
    let picky = Picky::<true> { seen: seen.clone(), refuses: Box::new(|_, _| false), of: other.payments() };
    let second = ConsumerRunner::new(picky, source(), other.store.clone()).on_failure(forwards());
    let second = run(second.inbox(std::time::Duration::ZERO), seen);
    foreign.pay(1, "a", 1, 1);
    records(format!("{}.dlq", foreign.topic), 1).await;

    let dead = dead(&foreign);
    let found = dead.list(&DeadRecordFilter::default()).await.unwrap();
    let record = &found[0];
    assert_eq!((record.handler.as_deref(), &*record.class, record.attempts), (Some("picky"), "refused", 4));
    assert_eq!((&record.original_topic, record.original_partition, record.original_offset), (&foreign.topic, 1, 0));
    assert_eq!((record.key.as_deref(), &record.value), (Some(&b"a"[..]), &None), "a list has no values");
    let whole = dead.show(record.partition, record.offset).await.unwrap();
    assert!(whole.value.unwrap().starts_with(br#"{"type":"captured""#));

    dead.replay(&found, ReplayTo::Handler, &act()).await.unwrap();
    records(format!("{}.dlq", foreign.topic), 2).await;
    let again = dead.list(&DeadRecordFilter::default()).await.unwrap();
    assert_eq!((again.len(), again[0].offset, again[0].attempts), (1, 1, 2), "it has failed again");

    is_mended.store(true, Ordering::Relaxed);
    dead.replay(&again, ReplayTo::Handler, &act()).await.unwrap();
    for (foreign, name) in [(&foreign, "picky"), (&other, "other")] {
        reaches(foreign, name, retry(foreign, 1, 1), 3).await;
    }
    assert_eq!((foreign.balance("a").await, second.seen.amounts()), (1, vec![1]));
    assert!(offsets(&dead).await.is_empty());
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_record_is_replayed_to_the_topic_as_it_was() {
    let foreign = Foreign::new(2).await;
    let value = r#"{"type":"captured","id":1,"account":"a","cents":1}"#;
    foreign.send(1, Some("a"), &[("traceparent", "x")], Some(value));
    let before = records(foreign.topic.clone(), 1).await;
    let running = start(&foreign, foreign.source(), |_, before| before < 2, |it| it);
    records(format!("{}.dlq", foreign.topic), 1).await;
    let dead = dead(&foreign);
    let found = dead.list(&DeadRecordFilter::default()).await.unwrap();
    // There is no retry topic.
    let refused = dead.replay(&found, ReplayTo::Handler, &act()).await.unwrap_err();
    assert!(matches!(refused, DeadLetterError::NoTopic { .. }), "{refused:?}");
    assert_eq!(offsets(&dead).await, [0], "nothing was done");
    dead.replay(&found, ReplayTo::Topic, &act()).await.unwrap();
    reaches(&foreign, "picky", foreign.shard(1), 2).await;
    let after = records(foreign.topic.clone(), 2).await;
    assert_eq!((&after[0], &after[1]), (&before[0], &before[0]));
    assert_eq!(foreign.balance("a").await, 1);
    assert!(offsets(&dead).await.is_empty());
    running.stop().await;
}

/// A crash has forwarded one of them twice.
#[tokio::test(flavor = "multi_thread")]
async fn dead_records_are_found_by_what_is_known_of_them_and_discarded() {
    let foreign = Foreign::new(1).await;
    let dead = dead(&foreign);
    assert!(offsets(&dead).await.is_empty(), "there is no topic yet");
    let told = |handler: &str, class: &str, offset: &str, failed_at: &str| {
        [
            ("handler", handler),
            ("original-topic", &foreign.topic),
            ("original-partition", "0"),
            ("original-offset", offset),
            ("attempts", "1"),
            ("error-class", class),
            ("failed-at", failed_at),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let send = |headers: &[(String, String)]| {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        foreign.send_to(&dead.name(), 0, Some("a"), &headers, Some("{}"));
    };
    crate::setup::House::new().create_topic(&dead.name(), 1).await;
    send(&told("picky", "refused", "4", "2026-01-01T00:00:00Z"));
    send(&told("picky", "unreadable", "5", "2026-01-02T00:00:00Z"));
    send(&told("picky", "refused", "4", "2026-01-03T00:00:00Z"));
    send(&told("other", "refused", "4", "2026-01-04T00:00:00Z"));
    send(&told("other", "refused", "many", "2026-01-05T00:00:00Z"));
    let found = dead.list(&DeadRecordFilter::default()).await.unwrap();
    let told: Vec<_> = found.iter().map(|record| (record.handler.as_deref(), &*record.class, record.offset)).collect();
    let (picky, other) = (Some("picky"), Some("other"));
    let damaged = (None, "damaged", 4);
    assert_eq!(told, [damaged, (picky, "unreadable", 1), (picky, "refused", 2), (other, "refused", 3)]);

    let of = async |filter: DeadRecordFilter| {
        let found = dead.list(&filter).await.unwrap();
        found.iter().map(|record| record.offset).collect::<Vec<_>>()
    };
    let all = DeadRecordFilter::default;
    assert_eq!(of(DeadRecordFilter { handler: Some("picky".into()), ..all() }).await, [1, 2]);
    assert_eq!(of(DeadRecordFilter { class: Some("refused".into()), ..all() }).await, [2, 3]);
    assert_eq!(of(DeadRecordFilter { original_offset: Some(5), original_partition: Some(0), ..all() }).await, [1]);
    assert_eq!(of(DeadRecordFilter { since: Some("2026-01-03T00:00:00Z".parse().unwrap()), ..all() }).await, [2, 3]);
    let one = dead.list(&DeadRecordFilter { offset: Some(2), ..all() }).await.unwrap();
    dead.discard(&one, &act()).await.unwrap();
    assert_eq!(of(all()).await, [4, 1, 3], "its copy is gone with it, and the same place of another handler stays");
    let nameless = dead.list(&DeadRecordFilter { offset: Some(4), ..all() }).await.unwrap();
    let refused = dead.replay(&nameless, ReplayTo::Handler, &act()).await.unwrap_err();
    assert!(matches!(refused, DeadLetterError::NoHandler { .. }), "{refused:?}");
    dead.discard(&nameless, &act()).await.unwrap();
    assert_eq!(of(all()).await, [1, 3]);
    let gone = dead.show(0, 99).await.unwrap_err();
    assert!(matches!(gone, DeadLetterError::Gone { .. }) && !gone.is_transient(), "{gone:?}");
}
