//! Everything that may die does, again and again.

use order_service::workers::Worker;

use crate::{clients::Clients, compare, ground::Ground};

/// R9, R10: 10,000 orders by 64 clients, while relay and projectors are killed (-9).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_r10_killed_relays_and_projectors_leave_the_fold_of_the_log() {
    const ORDERS: u64 = 10_000;
    let ground = Ground::new().await;
    let (url, _serving) = ground.serve().await;
    let policy = ground.start([Worker::Policy]);
    let steady = ground.spawn(&["project"]);
    let (mut relay, mut projector) = (ground.spawn(&["relay"]), ground.spawn(&["project"]));
    let mut clients = Clients::start(&url, 64, ORDERS);
    for round in 1..=6 {
        clients.placed(round * ORDERS / 8).await;
        relay.kill();
        relay = ground.spawn(&["relay"]);
        if round % 2 == 0 {
            projector.kill();
            projector = ground.spawn(&["project"]);
        }
        if round == 4 {
            // A second relay of the same name fences the first, which ends.
            let elder = std::mem::replace(&mut relay, ground.spawn(&["relay"]));
            clients.placed(ORDERS / 2 + ORDERS / 16).await;
            elder.kill();
        }
    }
    clients.done().await;
    compare::caught_up(&ground.backend).await;
    compare::read_models_equal_the_fold(&ground.backend).await;
    compare::kafka_holds_the_log_once(&ground).await;
    drop((relay, projector, steady));
    policy.stop(std::time::Duration::from_secs(10)).await;
}
