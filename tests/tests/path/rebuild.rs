//! Read models are rebuilt while orders come in.

use es_core::{Generation, backend::Documents};
use order_service::read_models::NAMES;

use crate::{clients::Clients, compare, ground::Ground};

/// R12: each read model, from the log and from Kafka. It was seen to fail when an error of a worker of a replaced generation,
/// whose documents are being deleted, stopped the engine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r12_every_read_model_is_rebuilt_from_log_and_kafka_under_load() {
    const ORDERS: u64 = 4_000;
    let ground = Ground::new().await;
    let (url, _serving) = ground.serve().await;
    let _workers = ["publish", "saga", "project"].map(|role| ground.spawn(&[role]));
    let mut clients = Clients::start(&url, 16, ORDERS);
    for (number, name) in (0..).zip(NAMES) {
        clients.placed(ORDERS * (number + 1) / 8).await;
        let before = serving(&ground, name).await;
        for from in ["log", "kafka"] {
            let mut rebuild = ground.spawn(&["rebuild", name, "--from", from]);
            let status = tokio::task::spawn_blocking(move || rebuild.wait()).await.expect("no panic");
            assert!(status.expect("it is ours").success(), "{name} from {from}");
        }
        let after = serving(&ground, name).await;
        assert_ne!(before, after, "another generation serves");
    }
    clients.done().await;
    compare::caught_up(&ground.service).await;
    compare::read_models_equal_the_fold(&ground.service).await;
}

async fn serving(ground: &Ground, name: &str) -> Option<Generation> {
    let found = ground.service.store().generations(name).await.expect("the store is up");
    found.serving.map(|serving| serving.generation)
}
