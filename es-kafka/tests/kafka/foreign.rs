//! Consumers handle the messages of topics that other systems fill.

#[path = "foreign/beside.rs"]
mod beside;
#[path = "foreign/dead_letters.rs"]
mod dead_letters;
#[path = "foreign/depth.rs"]
mod depth;
#[path = "foreign/forward.rs"]
mod forward;
#[path = "foreign/header_names.rs"]
mod header_names;
#[path = "foreign/picky.rs"]
pub(crate) mod picky;
#[path = "foreign/setup.rs"]
pub(crate) mod setup;

use std::{
    collections::BTreeMap,
    error::Error as _,
    sync::Arc,
    time::{Duration, Instant},
};

use es_core::{
    Act, Consumer, DeadLetters, EngineError, FailurePolicy, LetterPage, Position, Recorded, StreamId, UnknownTypes,
    backend::SourceError,
};
use es_kafka::{KafkaTopic, RecordField, TopicStart};
use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminOptions, NewPartitions},
    producer::{BaseProducer, BaseRecord, Producer},
};
use tokio::sync::Notify;

use self::setup::{Consuming, Foreign, PaymentMessage, Payments};
use crate::setup::{PATIENCE, admin, brokers};

fn amounts(seen: &[Recorded<PaymentMessage>]) -> Vec<u64> {
    let amount = |message: &Recorded<PaymentMessage>| match message.data {
        PaymentMessage::Captured { cents, .. } => cents,
        PaymentMessage::Deleted => 0,
    };
    seen.iter().map(amount).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_each_format_are_handled_in_order() {
    let foreign = Foreign::new(1).await;
    let cloud = [("ce_specversion", "1.0"), ("ce_id", "1"), ("ce_source", "/acme"), ("ce_type", "captured")];
    foreign.send(0, Some("a"), &cloud, Some(r#"{"account":"a","cents":1,"more":true}"#));
    let structured =
        r#"{"specversion":"1.0","id":"2","source":"/acme","type":"captured","data":{"account":"a","cents":2}}"#;
    foreign.send(0, Some("a"), &[("content-type", "application/cloudevents+json")], Some(structured));
    foreign.pay(0, "a", 3, 3);
    foreign.send(0, Some("a"), &[], None);
    foreign.pay(0, "b", 5, 5);
    foreign.send(0, None, &[], Some(r#"{"type":"captured","id":6,"account":"c","cents":6}"#));
    let payments = foreign.payments();
    let seen = payments.seen.clone();
    let consuming = Consuming::start(foreign.runner(payments, foreign.source()));
    foreign.reaches(0, 6).await;
    foreign.group_knows(0, 6).await;
    consuming.stop().await;
    let seen = seen.lock().unwrap().clone();
    assert_eq!(amounts(&seen), [1, 2, 3, 5, 6], "the tombstone is passed over");
    let streams: Vec<_> = seen.iter().map(|message| message.stream.as_str()).collect();
    assert_eq!(streams, ["payment-a", "payment-a", "payment-a", "payment-b", "payment-partition:0"]);
    assert_eq!([foreign.balance("a").await, foreign.balance("b").await], [6, 5]);
    // What was committed is not read again.
    let payments = foreign.payments();
    let again = payments.seen.clone();
    let consuming = Consuming::start(foreign.runner(payments, foreign.source().tombstones("deleted")));
    foreign.send(0, Some("a"), &[], None);
    foreign.reaches(0, 7).await;
    consuming.stop().await;
    assert_eq!(amounts(&again.lock().unwrap()), [0], "it is handed over where it has a name");
}

#[tokio::test(flavor = "multi_thread")]
async fn r9_a_consumer_that_is_killed_before_its_checkpoint_repeats_nothing_in_effect() {
    let foreign = Foreign::new(1).await;
    foreign.pay(0, "a", 1, 10);
    foreign.pay(0, "a", 2, 20);
    foreign.pay(0, "a", 3, 30);
    let reached = Arc::new(Notify::new());
    let payments = Payments { hangs: Some((20, reached.clone())), ..foreign.payments() };
    let consuming = Consuming::start(foreign.runner(payments, foreign.source()));
    tokio::time::timeout(PATIENCE, reached.notified()).await.expect("it comes to the second payment");
    consuming.task.abort();
    assert_eq!(foreign.balance("a").await, 30);
    let payments = foreign.payments();
    let seen = payments.seen.clone();
    let consuming = Consuming::start(foreign.runner(payments, foreign.source()));
    foreign.reaches(0, 3).await;
    consuming.stop().await;
    assert_eq!(*amounts(&seen.lock().unwrap()).last().unwrap(), 30);
    assert_eq!(foreign.balance("a").await, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn r9_consumers_that_join_and_leave_handle_each_key_in_order_and_once_in_effect() {
    let foreign = Foreign::new(3).await;
    let mut sent = 0;
    let mut pay = |rounds: u64| {
        for _ in 0..rounds {
            sent += 1;
            for account in 0..6_u64 {
                let partition = i32::try_from(account % 3).unwrap();
                foreign.pay(partition, &account.to_string(), sent * 10 + account, sent);
            }
        }
        sent
    };
    let start = || {
        let payments = foreign.payments();
        let seen = payments.seen.clone();
        (Consuming::start(foreign.runner(payments, foreign.source())), seen)
    };
    let wait = async |last: u64| {
        for partition in 0..3 {
            foreign.reaches(partition, last * 2).await;
        }
    };
    let (first, of_first) = start();
    wait(pay(5)).await;
    let (second, of_second) = start();
    wait(pay(5)).await;
    first.stop().await;
    wait(pay(5)).await;
    let (third, of_third) = start();
    pay(3);
    // Killed, not stopped.
    second.task.abort();
    let last = pay(2);
    wait(last).await;
    third.stop().await;
    for account in 0..6 {
        assert_eq!(foreign.balance(&account.to_string()).await, (1..=last).sum::<u64>(), "{account}");
    }
    for seen in [of_first, of_second, of_third] {
        let mut by_key: BTreeMap<StreamId, Position> = BTreeMap::new();
        for message in seen.lock().unwrap().iter() {
            let before = by_key.insert(message.stream.clone(), message.position);
            assert!(before.is_none_or(|before| before < message.position), "{}", message.stream);
        }
    }
}

/// Seen to fail where the inbox knows nothing: both were handled, although the balance was right.
#[tokio::test(flavor = "multi_thread")]
async fn r9_a_message_that_is_sent_again_to_another_partition_is_handled_once() {
    let foreign = Foreign::new(2).await;
    foreign.pay(0, "a", 1, 1);
    let start = || {
        let payments = foreign.payments();
        let seen = payments.seen.clone();
        (Consuming::start(foreign.runner(payments, foreign.source())), seen)
    };
    let (consuming, seen) = start();
    foreign.reaches(0, 1).await;
    foreign.pay(1, "a", 1, 1);
    foreign.pay(1, "a", 2, 2);
    foreign.reaches(1, 2).await;
    consuming.stop().await;
    foreign.pay(0, "a", 1, 1);
    foreign.pay(0, "a", 3, 3);
    let (consuming, later) = start();
    foreign.reaches(0, 3).await;
    consuming.stop().await;
    assert_eq!((amounts(&seen.lock().unwrap()), amounts(&later.lock().unwrap())), (vec![1, 2], vec![3]));
    assert_eq!(foreign.balance("a").await, 6);
}

/// Seen to fail where the parked key is without its shard.
#[tokio::test(flavor = "multi_thread")]
async fn r19_a_record_that_cannot_be_read_holds_up_its_key_and_nothing_else() {
    let foreign = Foreign::new(1).await;
    foreign.send(0, Some("a"), &[], Some("hunter2"));
    foreign.pay(0, "a", 2, 2);
    foreign.pay(0, "b", 3, 3);
    foreign.pay(0, "c", 4, 4);
    let payments = Payments { refuses: Some(4), ..foreign.payments() };
    let runner = foreign.runner(payments, foreign.source()).on_failure(FailurePolicy::park());
    let consuming = Consuming::start(runner);
    foreign.reaches(0, 4).await;
    let letters = foreign.store.dead_letters(Payments::NAME, &LetterPage::first(9)).await.unwrap();
    let keys: Vec<_> = letters.iter().map(|letter| (letter.key.as_str(), letter.event.position.get())).collect();
    let key = |stream: &str| format!("{}/{stream}", foreign.shard(0));
    let (of_a, of_c) = (key("payment-a"), key("payment-c"));
    assert_eq!(keys, [(of_a.as_str(), 1), (of_a.as_str(), 2), (of_c.as_str(), 4)]);
    let (record, cause) = (&letters[0].event.data.payload, letters[0].cause.clone().unwrap());
    assert!(std::str::from_utf8(record).unwrap().contains("hunter2"), "the letter has all of the record");
    assert!(cause.contains("the value is no JSON") && !cause.contains("hunter2"), "{cause}");
    assert_eq!([foreign.balance("a").await, foreign.balance("b").await], [0, 3]);
    // An operator mends the record in the letter.
    let mended = std::str::from_utf8(record).unwrap();
    let mended = mended.replace("hunter2", r#"{\"type\":\"captured\",\"id\":1,\"account\":\"a\",\"cents\":1}"#);
    let act = Act::new("ada", "ticket 7").unwrap();
    foreign.store.edit_letter(Payments::NAME, &of_a, Position::new(1), mended.into(), &act).await.unwrap();
    foreign.store.request_retry(Payments::NAME, &of_a, &act).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while foreign.balance("a").await != 3 {
        assert!(Instant::now() < deadline, "{}", foreign.balance("a").await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    consuming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_a_record_that_cannot_be_read_stops_the_consumer_by_default() {
    let foreign = Foreign::new(1).await;
    foreign.pay(0, "a", 1, 1);
    foreign.send(0, Some("a"), &[], Some("hunter2"));
    let consuming = Consuming::start(foreign.runner(foreign.payments(), foreign.source()));
    let stopped = consuming.ends().await.unwrap_err();
    assert!(matches!(stopped, EngineError::Unreadable { .. }), "{stopped:?}");
    assert_eq!(foreign.checkpoint(0).await, Some(Position::new(1)));
}

/// Seen to fail where either of both is treated as `UnknownTypes::Stop`.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_types_are_passed_over_or_parked_as_declared() {
    for (unknown, letters) in [(UnknownTypes::Ignore, 0), (UnknownTypes::Park, 1)] {
        let foreign = Foreign::new(1).await;
        foreign.send(0, Some("a"), &[], Some(r#"{"type":"refunded","id":1}"#));
        foreign.pay(0, "b", 2, 2);
        let runner = foreign.runner(foreign.payments(), foreign.source()).unknown_types(unknown);
        let consuming = Consuming::start(runner);
        foreign.reaches(0, 2).await;
        consuming.stop().await;
        let found = foreign.store.dead_letters(Payments::NAME, &LetterPage::first(9)).await.unwrap();
        assert_eq!((found.len(), foreign.balance("b").await), (letters, 2));
    }
}

/// Deletes the records of the one partition before `offset`.
async fn delete_before(foreign: &Foreign, offset: i64) {
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&foreign.topic, 0, Offset::Offset(offset)).unwrap();
    admin().delete_records(&before, &AdminOptions::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_records_that_are_gone_before_they_were_read_stop_the_consumer() {
    let foreign = Foreign::new(1).await;
    foreign.pay(0, "a", 1, 1);
    let consuming = Consuming::start(foreign.runner(foreign.payments(), foreign.source()));
    foreign.reaches(0, 1).await;
    consuming.stop().await;
    foreign.pay(0, "a", 2, 2);
    // What was read may go.
    delete_before(&foreign, 1).await;
    let consuming = Consuming::start(foreign.runner(foreign.payments(), foreign.source()));
    foreign.reaches(0, 2).await;
    consuming.stop().await;
    foreign.pay(0, "a", 3, 3);
    foreign.pay(0, "a", 4, 4);
    delete_before(&foreign, 3).await;
    let consuming = Consuming::start(foreign.runner(foreign.payments(), foreign.source()));
    let stopped = consuming.ends().await.unwrap_err();
    assert!(matches!(stopped, EngineError::Source(SourceError::Expired { .. })), "{stopped:?}");
    assert!(stopped.source().unwrap().to_string().contains("offset 2"), "{stopped:?}");
    assert_eq!(foreign.balance("a").await, 3);
    // An operator has seen what is lost.
    let source = foreign.source().pass_lost_records();
    let consuming = Consuming::start(foreign.runner(foreign.payments(), source));
    foreign.reaches(0, 4).await;
    consuming.stop().await;
    assert_eq!(foreign.balance("a").await, 7);
}

/// Where it began is committed, also in an empty partition: otherwise the second run begins at the end again.
#[tokio::test(flavor = "multi_thread")]
async fn r11_a_consumer_that_began_at_the_end_misses_nothing_that_comes_after() {
    for written in [0, 2] {
        let foreign = Foreign::new(1).await;
        for id in 0..written {
            foreign.pay(0, "a", id, 100);
        }
        let source = || foreign.source().start(TopicStart::End);
        let consuming = Consuming::start(foreign.runner(foreign.payments(), source()));
        // It tells that when the begin is committed.
        foreign.group_knows(0, i64::try_from(written).unwrap()).await;
        consuming.stop().await;
        foreign.pay(0, "a", 7, 7);
        let consuming = Consuming::start(foreign.runner(foreign.payments(), source()));
        foreign.reaches(0, written + 1).await;
        // A partition that is added is read from its first record.
        let more = NewPartitions::new(&foreign.topic, 2);
        admin().create_partitions([&more], &AdminOptions::new()).await.unwrap();
        foreign.pay(1, "b", 8, 8);
        foreign.reaches(1, 1).await;
        consuming.stop().await;
        assert_eq!([foreign.balance("a").await, foreign.balance("b").await], [7, 8]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_begins_at_a_time() {
    let foreign = Foreign::new(1).await;
    foreign.pay(0, "a", 1, 1);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let since = chrono::Utc::now();
    foreign.pay(0, "a", 2, 2);
    let source = foreign.source().start(TopicStart::Since(since));
    let consuming = Consuming::start(foreign.runner(foreign.payments(), source));
    foreign.reaches(0, 2).await;
    consuming.stop().await;
    assert_eq!(foreign.balance("a").await, 2);
}

/// Its checkpoint comes to the end of the partition, where markers lie, so that no tool shows a lag.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_record_for_a_consumer_is_passed() {
    let foreign = Foreign::new(1).await;
    let producer: BaseProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .set("transactional.id", &foreign.topic)
        .create()
        .unwrap();
    let topic = foreign.topic.clone();
    let written = tokio::task::spawn_blocking(move || {
        producer.init_transactions(PATIENCE).unwrap();
        for (id, commits) in [(1, true), (2, false)] {
            producer.begin_transaction().unwrap();
            let value = format!(r#"{{"type":"captured","id":{id},"account":"a","cents":{id}}}"#);
            producer.send(BaseRecord::to(&topic).partition(0).key("a").payload(&value)).unwrap();
            producer.flush(PATIENCE).unwrap();
            if commits {
                producer.commit_transaction(PATIENCE).unwrap();
            } else {
                producer.abort_transaction(PATIENCE).unwrap();
            }
        }
    });
    written.await.unwrap();
    let consuming = Consuming::start(foreign.runner(foreign.payments(), foreign.source()));
    // Two records, and the markers of two transactions.
    foreign.reaches(0, 4).await;
    consuming.stop().await;
    assert_eq!(foreign.balance("a").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_does_not_fit_its_consumer_is_refused() {
    let foreign = Foreign::new(1).await;
    let source = foreign.source().category("shipment");
    let stopped = Consuming::start(foreign.runner(foreign.payments(), source)).ends().await.unwrap_err();
    assert!(matches!(stopped, EngineError::Source(SourceError::Unfit { .. })), "{stopped:?}");
    // The checkpoint is that of a topic which was deleted and created again, or of another one.
    let other = Foreign { store: foreign.store.clone(), ..Foreign::new(1).await };
    foreign.pay(0, "a", 1, 1);
    let consuming = Consuming::start(foreign.runner(foreign.payments(), foreign.source()));
    foreign.reaches(0, 1).await;
    consuming.stop().await;
    let source = KafkaTopic::new(brokers(), &*other.topic).named_by(RecordField::constant("captured"));
    let stopped = Consuming::start(other.runner(other.payments(), source)).ends().await.unwrap_err();
    assert!(matches!(stopped, EngineError::Source(SourceError::Unfit { .. })), "{stopped:?}");
}
