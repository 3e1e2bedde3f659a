//! What a service tells of parked keys, long folds and pauses.

use std::{
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use super::PATIENCE;
use crate::{
    event::Recorded,
    memory::MemoryStore,
    read::{
        failure::FailurePolicy,
        projection::{FoldResult, Keys, Projection},
        read_model::{Act, Operations},
    },
    service::{PartState, PartStatus, Service},
    stream::Position,
    testing::account::{Account, AccountCommand, AccountEvent},
};

/// Refuses 1, and blocks its thread at 2 until it is let go.
struct Stubborn(Mutex<mpsc::Receiver<()>>);

impl Projection for Stubborn {
    const NAME: &'static str = "stubborn";
    type Event = AccountEvent;
    type Document = u64;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, document: &mut Option<u64>, event: &Recorded<AccountEvent>) -> FoldResult {
        let AccountEvent::Deposited { amount } = event.data else { return Ok(()) };
        match amount {
            1 => return Err("as the test wants it".into()),
            2 => self.0.lock().expect("no panic under it").recv()?,
            _ => {}
        }
        *document = Some(amount);
        Ok(())
    }
}

async fn until(service: &Service, holds: impl Fn(&PartStatus) -> bool) -> PartStatus {
    let patience = Instant::now() + PATIENCE;
    loop {
        let status = service.status().await.part(Stubborn::NAME).expect("registered").clone();
        if holds(&status) {
            return status;
        }
        assert!(Instant::now() < patience, "{status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r19_a_service_tells_what_is_parked_paused_and_handled_for_long() {
    let ((release, blocked), store) = (mpsc::channel(), MemoryStore::new());
    let building = Service::builder("accounts", store.clone()).aggregate::<Account>();
    let building = building.projection(Stubborn(Mutex::new(blocked))).on_failure(FailurePolicy::park());
    let service = building.start().await.expect("started");
    // The read model of the empty log serves; a model that is being built is folded by other rules.
    until(&service, |part| part.building.is_none()).await;
    for (id, amount) in [("a", 1), ("b", 2), ("a", 3)] {
        service.repository::<Account>().execute(id, AccountCommand::Deposit(amount)).await.expect("executed");
    }
    let long = until(&service, |part| part.handling.is_some()).await;
    assert_eq!(long.handling, Some(Position::new(2)));
    assert!(long.handling_seconds.is_some_and(|seconds| seconds > 0), "{long:?}");
    release.send(()).expect("it waits");
    service.settled(PATIENCE).await.expect("it continues");
    let parked = until(&service, |part| part.handling.is_none()).await;
    assert_eq!((parked.parked_keys, parked.dead_letters), (Some(1), Some(2)));
    store.pause(Stubborn::NAME, &Act::new("ada", "ticket 7").expect("valid")).await.expect("known");
    let paused = until(&service, |part| matches!(part.state, PartState::Paused { .. })).await;
    assert!(matches!(paused.state, PartState::Paused { actor, .. } if actor == "ada"));
    assert!(service.health().await.ready, "no operator is called for that");
    service.shutdown(PATIENCE).await.expect("in good order");
}
