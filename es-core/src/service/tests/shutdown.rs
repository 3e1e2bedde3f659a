//! How a service ends.

use super::*;

#[tokio::test]
async fn r16_a_shutdown_takes_no_longer_than_it_may_and_names_what_did_not_end() {
    let (service, relay) = with_relay(&[Act::Hang]).await;
    relay.runs(|(begun, _)| begun == 1).await;
    deposit(&service, 1).await;
    service.settled(PATIENCE).await.expect("it settles");
    let begun = Instant::now();
    let ended = service.shutdown(Duration::from_millis(400)).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(matches!(ended, Err(ShutdownError::Late { ref late }) if *late == ["relay"]), "{ended:?}");
    let health = service.health().await;
    assert!(!health.live && !health.ready, "{health:?}");
    assert!(health.status.parts.iter().all(|part| part.state == PartState::Ended), "{health:?}");
    ends(&service).await;
}

#[tokio::test]
async fn r16_a_shutdown_releases_the_leases() {
    let store = MemoryStore::new();
    let start = || builder(&store).lease(Duration::from_hours(1)).projection(Histories).start();
    for amount in 1..=2 {
        let service = start().await.expect("it starts");
        deposit(&service, amount).await;
        service.settled(PATIENCE).await.expect("it has the lease at once");
        ends(&service).await;
    }
}

#[tokio::test]
async fn a_service_that_is_dropped_tells_its_parts_to_end() {
    let (service, relay) = with_relay(&[Act::Work]).await;
    relay.runs(|(begun, _)| begun == 1).await;
    let clone = service.clone();
    drop(service);
    deposit(&clone, 1).await;
    clone.settled(PATIENCE).await.expect("a clone keeps it alive");
    drop(clone);
    relay.runs(|(_, ended)| ended == 1).await;
}
