//! R17: what readers of the merged source take in memory, in a process of their own.

use std::{collections::BTreeMap, process::Command};

use es_core::{EventOrder, EventStore, Metadata, Position, backend::Categories};
use es_kafka::KafkaSourceConfig;
use uuid::Uuid;

use crate::{
    reader::Reader,
    setup::{House, Running, event},
};

/// Names the prefix to a child process, and how far it reads.
const CHILD: &str = "ES_KAFKA_TEST_MEMORY";
const READERS: usize = 3;
/// What [`KafkaSourceConfig`] says that a merged reader takes, and what the process takes without any.
const BOUND: usize = READERS * 72 + 40;
/// How many events there are; `ES_KAFKA_TEST_EVENTS` names another number for a measurement.
const EVENTS: usize = 40_000;

fn events() -> usize {
    std::env::var("ES_KAFKA_TEST_EVENTS").ok().and_then(|count| count.parse().ok()).unwrap_or(EVENTS)
}

/// One category after the other, so that a reader that reads all partitions has to keep most of them back. Seen to fail with
/// 202,000 events: the three readers took 579 MB where only payloads were counted, and 545 MB where the client read ahead as many
/// records as its own limit in bytes allows, which does not count headers.
#[tokio::test(flavor = "multi_thread")]
async fn r17_three_merged_readers_of_one_process_stay_below_their_bound() {
    let house = House::new();
    for category in ["order", "payment", "inventory", "shipment"] {
        for round in 0..events() / 4 / 500 {
            let metadata = Metadata {
                correlation_id: Some(Uuid::now_v7()),
                causation_id: Some(Uuid::now_v7()),
                traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
                actor: Some("USR-0123456789".into()),
                ..Metadata::default()
            };
            let events = (0..500).map(|_| event(category, 200).with_metadata(metadata.clone())).collect();
            house.append_events(category, &format!("{}", round % 50), events).await;
        }
    }
    let last = house.store.head().await.unwrap();
    let mut relay = Running::start(house.relay());
    relay.reaches(last).await;
    relay.stop().await.unwrap();
    let (prefix, last) = (house.prefix.clone(), last.get());
    drop(house);
    let child = tokio::task::spawn_blocking(move || {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "memory::what_a_child_process_reads", "--ignored", "--nocapture"]);
        child.env(CHILD, format!("{prefix} {last}")).output().unwrap()
    });
    let output = child.await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{text}");
    let peak = text.lines().find_map(|line| line.strip_prefix("peak ")).and_then(|line| line.parse::<usize>().ok());
    let peak = peak.unwrap_or_else(|| panic!("{text} {}", String::from_utf8_lossy(&output.stderr)));
    println!("{last} events, {READERS} readers: peak of {peak} MB");
    assert!(peak <= BOUND, "{peak} MB, and not {BOUND} MB");
}

/// Only for the test above.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is a part of another test"]
async fn what_a_child_process_reads() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (prefix, last) = told.split_once(' ').unwrap();
    let last = Position::new(last.parse().unwrap());
    let config = KafkaSourceConfig {
        topic_prefix: prefix.to_owned(),
        ..KafkaSourceConfig::new(crate::setup::brokers(), "relay")
    };
    let readers = (0..READERS).map(|_| {
        let config = config.clone();
        tokio::spawn(async move {
            let mut reader = Reader::open(config, Categories::All, EventOrder::PerKey, BTreeMap::new()).await;
            while reader.reached() < last {
                reader.step().await.unwrap();
                // It folds, and keeps nothing.
                reader.events.clear();
            }
        })
    });
    let began = std::time::Instant::now();
    for reader in readers.collect::<Vec<_>>() {
        reader.await.unwrap();
    }
    println!("read in {:?}", began.elapsed());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: usize = peak.trim().trim_end_matches(" kB").trim().parse().unwrap();
    println!("peak {}", kilobytes / 1_000);
}
