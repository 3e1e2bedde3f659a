//! Three brokers.

use std::{sync::Arc, time::Duration};

use es_core::{
    Append, EventStore, Expected, MemoryStore, Position, StreamId,
    service::Engine,
    testing::{account::AccountEvent, history},
};
use es_kafka::{Reconcile, Relay, RelayConfig, RelayError};
use tests::cluster::{Cluster, Installed};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::turn;

const PATIENCE: Duration = Duration::from_mins(1);

async fn published(relay: &Relay, position: u64) {
    let mut published = relay.published();
    let reached = published.wait_for(|published| published.get() >= position);
    tokio::time::timeout(PATIENCE, reached).await.expect("in time").expect("the relay lives");
}

/// A relay of a log in memory, at work.
struct House {
    store: MemoryStore,
    config: RelayConfig,
    relay: Arc<Relay>,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), RelayError>>,
}

impl House {
    fn new(cluster: &Cluster) -> Self {
        let store = MemoryStore::new();
        let config = RelayConfig { replication: 3, ..RelayConfig::new(cluster.brokers(), "chaos") };
        let relay = Arc::new(Relay::new(Arc::new(store.clone()), config.clone()));
        let shutdown = CancellationToken::new();
        let running = tokio::spawn({
            let (relay, shutdown) = (relay.clone(), shutdown.clone());
            async move { relay.run(shutdown).await }
        });
        Self { store, config, relay, shutdown, running }
    }

    async fn append(&self, count: u64) {
        for number in 0..count {
            let event = history().event("1", AccountEvent::Deposited { amount: number + 1 }).events()[0].clone();
            let stream = StreamId::new("account", &(number % 7).to_string()).expect("a valid name");
            let append = Append::new(stream, Expected::Any, vec![es_core::NewEvent::new(event.data)]);
            self.store.append(append).await.expect("it is written");
            tokio::task::yield_now().await;
        }
    }

    /// Kafka holds `events` events, as the log does; then the relay ends.
    async fn holds(self, events: u64) {
        let reconciled = Reconcile::new(self.store, self.config).run(None, |_| ()).await.expect("Kafka answers");
        assert_eq!((reconciled.published, reconciled.violation), (Position::new(events), None));
        self.shutdown.cancel();
        self.running.await.expect("no panic").expect("in good order");
    }
}

/// R10: of three brokers one is killed (-9) while a relay publishes, and starts again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_a_killed_broker_leaves_the_log_in_kafka_once() {
    const EVENTS: u64 = 300;
    if Installed::or_left_out().is_none() {
        return;
    }
    let _turn = turn().await;
    let cluster = Cluster::of(3).start().await;
    let house = House::new(&cluster);
    house.append(EVENTS).await;
    published(&house.relay, 1).await;
    cluster.kill(0).await;
    house.append(EVENTS).await;
    // Two brokers are enough.
    published(&house.relay, 2 * EVENTS).await;
    cluster.restart(0).await;
    house.append(EVENTS).await;
    published(&house.relay, 3 * EVENTS).await;
    house.holds(3 * EVENTS).await;
}

/// R18: a relay starts before the brokers that its topics need. (A run of the suite has shown that it stopped for good.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r18_a_relay_waits_for_brokers_that_a_new_topic_needs() {
    if Installed::or_left_out().is_none() {
        return;
    }
    let _turn = turn().await;
    let cluster = Cluster::of(3).without(2).start().await;
    let house = House::new(&cluster);
    let refused = loop {
        assert!(!house.running.is_finished(), "it has stopped: {:?}", house.running.await);
        if let Some(failure) = Engine::report(&*house.relay).last_failure() {
            break failure.error;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(refused.contains("InvalidReplicationFactor"), "{refused}");
    cluster.restart(2).await;
    house.append(10).await;
    published(&house.relay, 10).await;
    house.holds(10).await;
}
