//! Relays and projectors are killed, doubled and stopped, again and again.

use std::time::Duration;

use es_core::Projection;
use order_service::{fulfilment, read_models::DailyRevenue};

use crate::{clients::Clients, compare, ground::Ground};

/// R9, R10: 10,000 orders by 64 clients, while relays and projectors are killed (-9), started twice, or stopped in the middle
/// of their work and continued after others have taken over.
///
/// It was seen to fail when a commit did not compare token and position, and when the relay
/// published without transactions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_r10_killed_relays_and_projectors_leave_the_fold_of_the_log() {
    const ORDERS: u64 = 10_000;
    let ground = Ground::new().await;
    let (url, _serving) = ground.serve().await;
    let saga = ground.start(fulfilment::PARTS).await;
    let mut clients = Clients::start(&url, 64, ORDERS);

    // A projector with a backlog in Kafka is stopped while it holds batches.
    let mut relay = ground.spawn(&["publish"]);
    clients.placed(ORDERS / 2).await;
    let zombie = ground.spawn(&["project"]);
    compare::begun(&ground.service, DailyRevenue::NAME).await;
    zombie.signal("STOP");

    let mut projector = ground.spawn(&["project"]);
    for round in 1..=7 {
        clients.placed((8 + round) * ORDERS / 16).await;
        relay.kill();
        relay = ground.spawn(&["publish"]);
        if round % 2 == 0 {
            projector.kill();
            projector = ground.spawn(&["project"]);
        }
        if round == 5 {
            // A second relay of the same name fences the first, which stands by.
            let elder = std::mem::replace(&mut relay, ground.spawn(&["publish"]));
            clients.placed(ORDERS * 27 / 32).await;
            elder.kill();
        }
    }
    clients.done().await;
    compare::caught_up(&ground.service).await;

    zombie.signal("CONT");
    Clients::start_at(&url, 64, ORDERS..ORDERS + 500).done().await;
    compare::caught_up(&ground.service).await;
    compare::read_models_equal_the_fold(&ground.service).await;
    compare::kafka_holds_the_log_once(&ground).await;
    drop((relay, projector, zombie));
    saga.shutdown(Duration::from_secs(10)).await.expect("it ends in time");
}
