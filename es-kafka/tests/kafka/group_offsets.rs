//! Tools that show the lag of consumer groups see every reader.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use es_core::{
    ReadModel, ReadToken,
    backend::{Documents, Leases},
};
use es_kafka::Offsets;
use rdkafka::{
    ClientConfig, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use tokio_util::sync::CancellationToken;

use crate::{
    parts::{Positions, projector},
    setup::{House, PATIENCE, Running, brokers},
};

/// Waits until `group` knows all of `offsets`.
fn knows(group: &str, offsets: &Offsets) {
    let mut client = ClientConfig::new();
    let consumer: BaseConsumer = client.set("bootstrap.servers", brokers()).set("group.id", group).create().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut list = TopicPartitionList::new();
        for (topic, partition, _) in offsets.iter() {
            list.add_partition(topic, partition);
        }
        let found = consumer.committed_offsets(list, PATIENCE).unwrap();
        let told = |topic: &str, partition| found.find_partition(topic, partition)?.offset().to_raw();
        if offsets.iter().all(|(topic, partition, next)| told(topic, partition) == Some(next)) {
            return;
        }
        assert!(Instant::now() < deadline, "{group} is at {found:?}, not at {offsets:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// While it runs, and after it has ended; the second time from where it had come.
async fn shows_no_lag<const PER_STREAM: bool>() {
    let house = House::new();
    let mut relay = Running::start(house.relay());
    for round in 0..2 {
        let stop = CancellationToken::new();
        let projector = projector(&house, Positions::<PER_STREAM>::default());
        let running = tokio::spawn({
            let stop = stop.clone();
            async move { projector.run(stop).await }
        });
        let mut head = None;
        for id in 0..9 {
            head = Some(house.append("order", &format!("{round}-{id}"), 3).await.position);
        }
        let head = head.unwrap();
        relay.reaches(head).await;
        let model = ReadModel::<Positions<PER_STREAM>>::new(Arc::new(house.store.clone()));
        model.patience(PATIENCE).wait_for(ReadToken(head), PATIENCE).await.unwrap();
        let serving = house.store.generations("positions").await.unwrap().serving.unwrap().generation.reader;
        let group = format!("{}positions-g{}-{}", house.prefix, serving.id, house.store.id().await.unwrap());
        let offsets = house.progress(head).await.offsets;
        tokio::task::spawn_blocking(move || knows(&group, &offsets)).await.unwrap();
        stop.cancel();
        running.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_shows_no_lag_when_its_reader_has_everything() {
    shows_no_lag::<true>().await;
}

/// It assigns partitions to itself, so its group has no members.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_in_log_order_shows_no_lag_when_it_has_everything() {
    shows_no_lag::<false>().await;
}
