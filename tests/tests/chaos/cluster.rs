//! Three brokers.

use std::{sync::Arc, time::Duration};

use es_core::{
    Append, EventStore, Expected, MemoryStore, Position, StreamId,
    testing::{account::AccountEvent, history},
};
use es_kafka::{Reconcile, Relay, RelayConfig};
use tests::cluster::{Cluster, Installed};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_mins(1);

async fn published(relay: &Relay, position: u64) {
    let mut published = relay.published();
    let reached = published.wait_for(|published| published.get() >= position);
    tokio::time::timeout(PATIENCE, reached).await.expect("in time").expect("the relay lives");
}

/// R10: of three brokers one is killed (-9) while a relay publishes, and starts again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_a_killed_broker_leaves_the_log_in_kafka_once() {
    const EVENTS: u64 = 300;
    if Installed::or_left_out().is_none() {
        return;
    }
    let cluster = Cluster::of(3).start().await;
    let store = MemoryStore::new();
    let config = RelayConfig { replication: 3, ..RelayConfig::new(cluster.brokers(), "chaos") };
    let relay = Arc::new(Relay::new(Arc::new(store.clone()), config.clone()));
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let (relay, shutdown) = (relay.clone(), shutdown.clone());
        async move { relay.run(shutdown).await }
    });
    let append = async |from: u64, until: u64| {
        for number in from..until {
            let event = history().event("1", AccountEvent::Deposited { amount: number + 1 }).events()[0].clone();
            let event = es_core::NewEvent::new(event.data);
            let stream = StreamId::new("account", &(number % 7).to_string()).expect("a valid name");
            store.append(Append::new(stream, Expected::Any, vec![event])).await.expect("it is written");
            tokio::task::yield_now().await;
        }
    };
    append(0, EVENTS).await;
    published(&relay, 1).await;
    cluster.kill(0).await;
    append(EVENTS, 2 * EVENTS).await;
    // Two brokers are enough.
    published(&relay, 2 * EVENTS).await;
    cluster.restart(0).await;
    append(2 * EVENTS, 3 * EVENTS).await;
    published(&relay, 3 * EVENTS).await;
    let reconciled = Reconcile::new(store.clone(), config).run(None, |_| ()).await.expect("Kafka answers");
    assert_eq!((reconciled.published, reconciled.violation), (Position::new(3 * EVENTS), None));
    shutdown.cancel();
    running.await.expect("no panic").expect("in good order");
}
