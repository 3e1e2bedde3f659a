#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

use std::{collections::BTreeSet, time::Duration};

use es_core::{
    EventData, EventOrder, Metadata, Position, RecordedEvent, StreamId, Version,
    backend::{Batch, Categories, Delivery, EventFeed, Split, Subscription, Takeover},
};
use rdkafka::ClientConfig;
use uuid::Uuid;

use super::{published::Published, *};
use crate::{
    config::KafkaSourceConfig,
    payloads::Payloads,
    progress::Progress,
    record,
    source::{
        begin::Begin,
        feed::KafkaFeed,
        mark::Mark,
        member::Member,
        watchdog::{Measure, Watchdog},
    },
    topics::{Topics, shard},
};

const PARTITIONS: i32 = 12;

fn event(position: u64) -> RecordedEvent {
    RecordedEvent {
        position: Position::new(position),
        stream: StreamId::new("order", "1").unwrap(),
        version: Version::new(1),
        id: Uuid::from_u128(u128::from(position)),
        recorded_at: chrono::DateTime::UNIX_EPOCH,
        metadata: Metadata::default(),
        data: EventData { name: "happened".into(), schema_version: 1, payload: bytes::Bytes::from_static(b"{}") },
    }
}

/// A group whose partitions have news at every turn: no batch is too soon.
fn group() -> (Group<Published>, KafkaSourceConfig, KafkaFeed) {
    let shards = (0..PARTITIONS).map(|partition| shard("order-events", partition));
    let mut shards: Vec<_> = shards.collect();
    shards.sort_unstable();
    let outbox = Outbox::new(shards);
    let members = (0..PARTITIONS).map(|partition| (partition, member(partition, Mark::default()))).collect();
    let published = Published {
        outbox: outbox.clone(),
        topics: Topics::new(""),
        subscription: Subscription {
            reader: "reader".into(),
            store: Uuid::nil(),
            categories: Categories::All,
            order: EventOrder::PerStream,
            split: Split::NONE,
            forwards: false,
        },
        observer: ClientConfig::new(),
        progress: Mutex::default(),
        payloads: Payloads::default(),
    };
    let group = Group::new(outbox.clone(), published);
    group.members().insert("order-events".to_owned(), members);
    let config = KafkaSourceConfig { advance_every: Duration::ZERO, ..KafkaSourceConfig::new("", "relay") };
    let watchdog = Watchdog::new(Arc::new(config.clone()), Measure::Relay, "reader".into());
    (group, config, KafkaFeed::new(outbox, Takeover::Always, watchdog))
}

fn member(partition: i32, mark: Mark) -> Member {
    Member::new("order-events", partition, Begin::default(), mark)
}

fn progress(position: u64) -> Progress {
    let (position, event_id) = (Position::new(position), Uuid::from_u128(u128::from(position)));
    Progress {
        incarnation: Uuid::nil(),
        position,
        head: Position::new(9),
        event_id,
        recorded_at: chrono::DateTime::UNIX_EPOCH,
        offsets: crate::Offsets::default(),
        positions: crate::PerPartition::default(),
        partitions: BTreeMap::new(),
        targets: BTreeMap::new(),
    }
}

async fn taken(feed: &mut KafkaFeed) -> Batch {
    match feed.next().await.unwrap() {
        Delivery::Batch(batch) => batch,
        other => panic!("{other:?}"),
    }
}

/// Able to lose: served from the first partition on, only the first few are ever heard of.
#[tokio::test]
async fn r13_every_quiet_partition_has_its_turn_however_slow_the_reader_is() {
    let (group, config, mut feed) = group();
    let mut heard = BTreeSet::new();
    for turn in 1..=20 {
        group.adopt(progress(turn)).unwrap();
        assert!(group.deliver(&config), "batches without events do not keep the loop from reading");
        heard.insert(taken(&mut feed).await.shard);
    }
    assert_eq!(heard.len(), 12, "{heard:?}");
}

#[tokio::test]
async fn r17_events_are_bounded_and_pass_partitions_that_are_quiet() {
    let (group, config, mut feed) = group();
    let read = |position: u64, partitions: std::ops::Range<i32>| {
        for partition in partitions {
            let mut members = group.members();
            let member = find(&mut members, "order-events", partition).unwrap();
            let event = event(position);
            let message = record::published(&event, "order-events", partition, 0, Position::ZERO);
            member.chain.take(&message).unwrap();
        }
    };
    group.adopt(progress(1)).unwrap();
    assert!(group.deliver(&config));
    // Advances wait. Of six partitions with events there is room for four.
    read(2, 6..12);
    let mut two = progress(2);
    for partition in 6..12 {
        two.offsets.set("order-events", partition, 1);
        two.positions.set("order-events", partition, Position::new(2));
    }
    group.adopt(two).unwrap();
    group.check().unwrap();
    assert!(!group.deliver(&config));
    let mut served = Vec::new();
    while served.len() < 6 {
        let batch = taken(&mut feed).await;
        if !batch.events.is_empty() {
            served.push(batch.shard);
        }
        group.deliver(&config);
    }
    served.sort_unstable();
    served.dedup();
    assert_eq!(served.len(), 6, "{served:?}");
    assert!(group.deliver(&config));
}

#[tokio::test]
async fn r12_the_end_is_said_once_of_every_partition_and_not_before_the_relay_has_spoken() {
    // The relay has published nothing yet, or three events.
    for progress in [progress(0), progress(3)] {
        let (group, config, mut feed) = group();
        let end = Mark::from(&progress);
        for (partition, placed) in group.members().get_mut("order-events").unwrap() {
            *placed = member(*partition, end);
        }
        group.deliver(&config);
        assert!(matches!(feed.next().await.unwrap(), Delivery::Idle), "the relay has said nothing yet");
        group.adopt(progress).unwrap();
        let mut ended = BTreeSet::new();
        for _ in 0..PARTITIONS {
            group.deliver(&config);
            let batch = taken(&mut feed).await;
            assert!(batch.end == Some(Position::new(9)) && batch.events.is_empty());
            assert_eq!(batch.checkpoint.position, end.position);
            assert!(ended.insert(batch.shard));
        }
        group.deliver(&config);
        assert!(matches!(feed.next().await.unwrap(), Delivery::Idle), "said twice");
    }
}

/// What is built from here on would wait for an end that does not come. (Seen to fail where any progress is adopted.)
#[tokio::test]
async fn r12_a_group_begins_anew_when_the_log_has_lost_the_end_that_it_was_told_of() {
    let (group, ..) = group();
    for turn in [3, 3, 4] {
        group.adopt(progress(turn)).unwrap();
    }
    let lost = group.adopt(Progress { head: Position::new(8), ..progress(5) });
    assert!(matches!(&lost, Err(error) if error.is_transient()), "{lost:?}");
}

/// Seen to fail where a failing thread revokes its shards as it leaves the group: what waited for the reader was dropped.
#[tokio::test]
async fn r9_what_waits_for_the_reader_comes_before_the_error_that_ends_the_thread() {
    let (group, config, mut feed) = group();
    group.adopt(progress(1)).unwrap();
    assert!(group.deliver(&config));
    group.outbox.fails();
    // The consumer leaves.
    group.outbox.revoked(feed.shards());
    group.outbox.end(Some(SourceError::Unavailable("a payload".into())));
    for _ in 0..4 {
        taken(&mut feed).await;
    }
    assert!(matches!(feed.next().await, Err(SourceError::Unavailable(_))));
}
