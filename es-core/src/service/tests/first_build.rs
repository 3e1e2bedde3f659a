//! Read models that are built for the first time and do not serve yet, and projections that cannot run.

use std::time::Duration;

use super::{Broken, PATIENCE, builder, ends, over};
use crate::{
    memory::MemoryStore,
    read::{engine_error::EngineError, samples::Distinct},
    service::{Parts, StartError, Thresholds, Unsettled},
    testing::account::Histories,
};

/// It would fail where the positions were all that was compared: that of an empty log is reached before anything is built.
#[tokio::test]
async fn r13_a_service_has_not_settled_before_its_read_models_serve() {
    let store = MemoryStore::new();
    let elsewhere = builder(&store).projection(Histories).parts(Parts::None).start().await.expect("it starts");
    let late = elsewhere.settled(Duration::from_millis(50)).await;
    let Err(Unsettled::Late { readers, .. }) = late else { panic!("{late:?}") };
    assert_eq!(readers, ["histories at 0, being built (this process does not run it)"]);
    let service = builder(&store).projection(Histories).start().await.expect("it starts");
    service.settled(PATIENCE).await.expect("it serves");
    assert_eq!(service.read_model::<Histories>().get("a").await.expect("it serves"), None);
    elsewhere.settled(PATIENCE).await.expect("it serves");
    ends(&service).await;
    ends(&elsewhere).await;
}

/// It lacks no event. Seen to fail where only positions were compared.
#[tokio::test]
async fn r13_a_service_has_not_settled_while_a_reader_has_stopped_for_good() {
    let store = MemoryStore::new();
    let before = builder(&store).projection(Histories).start().await.expect("it starts");
    before.settled(PATIENCE).await.expect("it serves");
    ends(&before).await;
    let service = builder(&store).projection(Histories).source(Broken).start().await.expect("it starts");
    over(&service, "histories").await;
    let late = service.settled(Duration::from_millis(50)).await;
    let Err(Unsettled::Late { readers, .. }) = late else { panic!("{late:?}") };
    assert_eq!(readers, ["histories at 0 (it has stopped: it panicked)"]);
    ends(&service).await;
}

/// It would fail where it was ready at once: requests were answered with 503 that came after `/readyz` was 200.
#[tokio::test]
async fn a_process_is_not_ready_before_its_read_models_serve_unless_that_takes_long() {
    let store = MemoryStore::new();
    let with = |first_build| {
        let thresholds = Thresholds { first_build, ..Thresholds::default() };
        builder(&store).projection(Histories).thresholds(thresholds)
    };
    let patient = with(Duration::MAX).parts(Parts::None).start().await.expect("it starts");
    let hasty = with(Duration::ZERO).parts(Parts::None).start().await.expect("it starts");
    let health = patient.health().await;
    assert_eq!(health.reasons, ["building: histories has reached position 0 and does not serve yet"]);
    assert_eq!((health.ready, health.status.parts[0].serves), (false, Some(false)));
    assert!(hasty.health().await.ready, "it is built for longer than that");
    let worker = with(Duration::MAX).start().await.expect("it starts");
    worker.settled(PATIENCE).await.expect("it serves");
    for service in [patient, hasty, worker] {
        let health = service.health().await;
        assert_eq!((health.ready, health.status.parts[0].serves), (true, Some(true)), "{health:?}");
        ends(&service).await;
    }
}

/// It would fail where the projector was the first to notice: the service started, and the part stopped.
#[tokio::test]
async fn a_service_with_a_projection_that_cannot_run_does_not_start() {
    let store = MemoryStore::new();
    let with = |shards| builder(&store).projection_with(Distinct, move |projector| projector.shards(shards));
    let refused = with(2).start().await;
    let Err(StartError::Projection { name, cause }) = refused else { panic!("{refused:?}") };
    assert_eq!(name, "distinct");
    assert!(matches!(*cause, EngineError::UniqueInShards), "{cause:?}");
    let elsewhere = with(2).parts(Parts::None).start().await;
    assert!(elsewhere.is_err(), "also where another process is to run it");
    ends(&with(1).start().await.expect("it starts")).await;
}
