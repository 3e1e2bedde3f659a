//! R10: whether Kafka holds the log can be proved, and what is wrong is named.

use std::{collections::BTreeMap, ops::ControlFlow, time::Duration};

use es_core::{EventStore, Position, RecordedEvent};
use es_kafka::{Cursor, Progress, Reconcile, ReconcileError, Reconciled, Relay, RelayConfig, Step, Violation, headers};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminOptions, NewPartitions},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::json;

use crate::setup::{House, PATIENCE, Published, Running, admin, brokers, open_transaction};

impl House {
    fn reconcile(&self) -> Reconcile {
        Reconcile::new(self.store.clone(), self.config()).patience(Duration::from_secs(10))
    }

    async fn reconciled(&self, cursor: Option<Cursor>) -> Reconciled {
        self.reconcile().run(cursor, |_| ()).await.unwrap()
    }

    async fn violation(&self) -> Violation {
        self.reconciled(None).await.violation.expect("something is wrong")
    }
}

/// Three streams of two categories, published by a relay that has stopped.
async fn published() -> (House, Position) {
    let house = House::new();
    for round in 0..5 {
        for id in ["a", "b", "c"] {
            house.append("order", id, 3).await;
        }
        house.append("payment", &round.to_string(), 2).await;
    }
    let last = house.store.head().await.unwrap();
    let mut relay = Running::start(Relay::new(house.store.clone(), RelayConfig { batch_events: 10, ..house.config() }));
    relay.reaches(last).await;
    relay.stop().await.unwrap();
    (house, last)
}

/// The topics of another prefix, filled with what `change` makes of the published records, as if a relay had done so.
async fn forged(change: impl FnOnce(&mut Vec<Published>)) -> House {
    let (house, last) = published().await;
    let (mut records, told) = (house.published(last).await, house.progress(last).await);
    change(&mut records);
    let forged = House { store: house.store.clone(), ..House::new() };
    let (from, to) = (house.topics(), forged.topics());
    let rename = |topic: &str| to.events(from.category(topic).unwrap());
    for (topic, partitions) in &told.partitions {
        forged.create_topic(&rename(topic), *partitions).await;
    }
    forged.create_topic(&to.progress(), 1).await;
    let (mut offsets, mut positions) = (BTreeMap::new(), BTreeMap::new());
    let mut written = Vec::new();
    for Published { topic, partition, event } in records {
        let (topic, number) = (rename(&topic), partition.to_string());
        let previous =
            positions.entry(topic.clone()).or_insert_with(BTreeMap::new).insert(number.clone(), event.position);
        *offsets.entry(topic.clone()).or_insert_with(BTreeMap::new).entry(number).or_insert(0_i64) += 1;
        written.push((topic, partition, event, previous.unwrap_or_default()));
    }
    let partitions: BTreeMap<_, _> = told.partitions.iter().map(|(topic, count)| (rename(topic), count)).collect();
    let mut progress = serde_json::to_value(&told).unwrap();
    progress["offsets"] = json!(offsets);
    progress["positions"] = json!(positions);
    progress["partitions"] = json!(partitions);
    assert!(serde_json::from_value::<Progress>(progress.clone()).is_ok());
    let topic = to.progress();
    tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers()).create().unwrap();
        for (topic, partition, event, previous) in &written {
            send(&producer, topic, *partition, event, *previous);
        }
        let value = progress.to_string();
        producer.send(BaseRecord::to(&topic).partition(0).key("relay").payload(&value)).unwrap();
        producer.flush(PATIENCE).unwrap();
    })
    .await
    .unwrap();
    forged
}

fn send(producer: &BaseProducer, topic: &str, partition: i32, event: &RecordedEvent, previous: Position) {
    let record = BaseRecord::to(topic).partition(partition).key(event.stream.as_str());
    let record = record.payload(event.data.payload.as_ref()).headers(headers(event, "/forged", previous));
    producer.send(record).unwrap();
}

/// Writes `event` to a partition as no relay would.
async fn plant(topic: &str, partition: i32, event: RecordedEvent, previous: Position) {
    let topic = topic.to_owned();
    let planted = tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers()).create().unwrap();
        send(&producer, &topic, partition, &event, previous);
        producer.flush(PATIENCE).unwrap();
    });
    planted.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_a_clean_log_is_proved_and_the_next_run_compares_only_what_was_added() {
    let (house, last) = published().await;
    let first = house.reconciled(None).await;
    assert_eq!((first.violation, first.from, first.cursor.position, first.head), (None, Position::ZERO, last, last));
    // As a file keeps it.
    let cursor: Cursor = serde_json::from_str(&serde_json::to_string(&first.cursor).unwrap()).unwrap();
    assert_eq!(cursor, first.cursor);
    let again = house.reconciled(Some(cursor.clone())).await;
    assert_eq!((again.violation, again.from, &again.cursor), (None, last, &cursor));

    let late = house.append("order", "a", 12).await.position;
    let unpublished = house.reconciled(Some(cursor.clone())).await;
    assert_eq!((unpublished.violation, unpublished.published, unpublished.head), (None, last, late));
    let mut relay = Running::start(house.relay());
    relay.reaches(late).await;
    // Beside the relay.
    let added = house.reconciled(Some(cursor)).await;
    assert_eq!((added.violation, added.from, added.cursor.position), (None, last, late));
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_a_log_that_was_never_published_and_topics_without_progress_are_told_apart() {
    let house = House::new();
    let last = house.append("order", "a", 3).await.position;
    let nothing = house.reconciled(None).await;
    assert_eq!((nothing.violation, nothing.published, nothing.head), (None, Position::ZERO, last));
    let topic = house.topics().events("order");
    house.create_topic(&topic, 3).await;
    let event = house.store.read_log(Position::ZERO, 1).await.unwrap().remove(0);
    plant(&topic, 0, event, Position::ZERO).await;
    let found = house.violation().await;
    assert!(matches!(&found, Violation::Foreign { offset: 0, .. }), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_each_kind_of_violation_is_found_and_named() {
    let forged_whole = forged(|_| ()).await;
    assert_eq!(forged_whole.reconciled(None).await.violation, None, "a copy is no violation");

    let missing = forged(|records| records.retain(|record| record.event.position.get() != 20)).await;
    let outcome = missing.reconciled(None).await;
    let found = outcome.violation.unwrap();
    assert!(matches!(&found, Violation::Missing { position, .. } if position.get() == 20), "{found}");
    assert_eq!(outcome.cursor.position.get(), 19);
    assert_eq!(missing.reconciled(Some(outcome.cursor)).await.violation, Some(found), "it is found again");

    let repeated = forged(|records| {
        let index = records.iter().position(|record| record.event.position.get() == 20).unwrap();
        let Published { topic, partition, event } = &records[index];
        let again = Published { topic: topic.clone(), partition: *partition, event: event.clone() };
        records.insert(index + 1, again);
    })
    .await;
    let found = repeated.violation().await;
    assert!(matches!(&found, Violation::Repeated { position, .. } if position.get() == 20), "{found}");

    let disordered = forged(|records| {
        let of = |wanted: u64, records: &[Published]| {
            records.iter().position(|record| record.event.position.get() == wanted).unwrap()
        };
        // Two events of one append, and so of one stream.
        let (first, second) = (of(1, records), of(2, records));
        records.swap(first, second);
    })
    .await;
    let found = disordered.violation().await;
    let named = |position: &Position, before: &Position| (position.get(), before.get()) == (1, 2);
    assert!(matches!(&found, Violation::OutOfOrder { position, before, .. } if named(position, before)), "{found}");

    let changed = forged(|records| {
        let record = records.iter_mut().find(|record| record.event.position.get() == 20).unwrap();
        record.event.data.payload = "{}".into();
    })
    .await;
    let found = changed.violation().await;
    assert!(matches!(&found, Violation::Content { field, .. } if field == "payload"), "{found}");

    let mut right = 0;
    let moved = forged(|records| {
        let record = records.iter_mut().find(|record| record.event.position.get() == 20).unwrap();
        right = record.partition;
        record.partition = (right + 1) % 3;
        records.sort_by_key(|record| record.event.position);
    })
    .await;
    let found = moved.violation().await;
    assert!(matches!(&found, Violation::Partition { expected, .. } if *expected == right), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_a_foreign_record_is_found_before_and_after_the_relay_has_gone_on() {
    let (house, last) = published().await;
    let topic = house.topics().events("order");
    let event = house.store.read_log(Position::ZERO, 1).await.unwrap().remove(0);
    let foreign = RecordedEvent { position: Position::new(500), ..event };
    plant(&topic, 1, foreign, last).await;
    for goes_on in [false, true] {
        if goes_on {
            for id in 0..9 {
                house.append("order", &format!("later-{id}"), 1).await;
            }
            let mut relay = Running::start(house.relay());
            relay.reaches(house.store.head().await.unwrap()).await;
            relay.stop().await.unwrap();
        }
        let found = house.violation().await;
        assert!(matches!(&found, Violation::Foreign { partition: 1, .. }), "{goes_on}: {found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_deleted_records_and_added_partitions_are_violations() {
    let (house, last) = published().await;
    let progress = house.progress(last).await;
    let (topic, partition, next) = progress.offsets.iter().find(|(.., next)| *next > 3).unwrap();
    let mut head = TopicPartitionList::new();
    head.add_partition_offset(topic, partition, Offset::Offset(next - 1)).unwrap();
    let clean = house.reconciled(None).await;
    admin().delete_records(&head, &AdminOptions::new()).await.unwrap();
    let found = house.violation().await;
    assert!(matches!(&found, Violation::Deleted { first, .. } if *first == next - 1), "{found}");
    assert_eq!(house.reconciled(Some(clean.cursor)).await.violation, None, "that was compared before");
    admin().create_partitions([&NewPartitions::new(topic, 7)], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    let found = house.violation().await;
    assert!(matches!(&found, Violation::Partitions { known: 3, found: 7, .. }), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_a_log_with_another_history_is_a_violation() {
    let (house, _) = published().await;
    let other = House { prefix: house.prefix.clone(), ..House::new() };
    let found = other.violation().await;
    assert!(matches!(&found, Violation::OtherHistory { .. }), "{found}");
    other.append("order", "a", 100).await;
    let found = other.violation().await;
    assert!(matches!(&found, Violation::OtherHistory { .. }), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_aborted_transactions_are_passed() {
    let house = House::new();
    let mut last = Position::ZERO;
    for step in [Step::Sent, Step::BeforeProgress, Step::BeforeCommit, Step::Committed] {
        for id in ["a", "b", "c"] {
            last = house.append("order", id, 11).await.position;
        }
        let config = RelayConfig { batch_events: 10, ..house.config() };
        let relay = Relay::new(house.store.clone(), config)
            .at_each_step(move |now| if now == step { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
        assert!(Running::start(relay).ends().await.is_err());
    }
    let mut relay = Running::start(house.relay());
    relay.reaches(last).await;
    let found = house.reconciled(None).await;
    assert_eq!((found.violation, found.cursor.position), (None, last));
}

/// What an open transaction hides is not missing, and not there either.
#[tokio::test(flavor = "multi_thread")]
async fn r10_records_that_an_open_transaction_hides_are_undecided_until_it_ends() {
    let (house, last) = published().await;
    let progress = house.progress(last).await;
    let (topic, partition, _) = progress.offsets.iter().next().unwrap();
    let other = open_transaction(topic, partition).await;
    for id in 0..9 {
        house.append("order", &format!("later-{id}"), 2).await;
        house.append("payment", &format!("later-{id}"), 2).await;
    }
    let last = house.store.head().await.unwrap();
    let mut relay = Running::start(house.relay());
    relay.reaches(last).await;
    let hidden = house.reconcile().patience(Duration::from_secs(3)).run(None, |_| ()).await;
    let place = format!("{topic}/{partition} offset ");
    let undecided =
        |error: &ReconcileError| matches!(error, ReconcileError::Undecided { place: at } if at.starts_with(&place));
    assert!(hidden.as_ref().is_err_and(|error| undecided(error) && error.is_transient()), "{hidden:?}");
    tokio::task::spawn_blocking(move || other.abort_transaction(PATIENCE).unwrap()).await.unwrap();
    let found = house.reconciled(None).await;
    assert_eq!((found.violation, found.cursor.position), (None, last));
}

/// Far more than the buffer: partitions wait for each other.
#[tokio::test(flavor = "multi_thread")]
async fn r17_a_comparison_keeps_to_its_buffer() {
    let house = House::new();
    for _ in 0..4 {
        // One partition after the other, so that each is far ahead of the rest in turn.
        for id in ["a", "b", "c", "d", "e"] {
            house.append_sized("order", id, 200, 1_000).await;
        }
    }
    let last = house.store.head().await.unwrap();
    let mut relay = Running::start(house.relay());
    relay.reaches(last).await;
    let told = std::sync::Mutex::new(Vec::new());
    let small = house.reconcile().buffer_bytes(30_000);
    let found = small.run(None, |cursor| told.lock().unwrap().push(cursor.clone())).await.unwrap();
    assert_eq!((found.violation, found.cursor.position), (None, last));
    let told = told.into_inner().unwrap();
    assert!(told.len() > 1, "{}", told.len());
    let continued = house.reconciled(Some(told[0].clone())).await;
    assert_eq!((continued.violation, continued.from), (None, told[0].position), "a run that was interrupted continues");
}
