//! Rebuilds that an operator asks a service for.

use tokio_util::sync::CancellationToken;

use super::{PATIENCE, builder, deposit, ends};
use crate::{
    memory::MemoryStore,
    read::{
        engine_error::EngineError,
        read_model::{Act, Operations},
        watch::Since,
    },
    service::Parts,
    stream::Position,
    testing::account::{Histories, Ledger},
};

#[tokio::test]
async fn r22_who_rebuilds_a_read_model_is_recorded_and_so_is_that_it_serves() {
    let store = MemoryStore::new();
    let service =
        builder(&store).projection(Ledger::<1>::default()).parts(Parts::None).start().await.expect("it starts");
    for amount in [1, 2] {
        deposit(&service, amount).await;
    }
    let plan = service.plan_rebuild("ledger").await.expect("planned");
    assert_eq!((plan.events, plan.bytes), (2, 24));
    assert_eq!(service.rebuilding("ledger").expect("known"), None);
    let act = Act::new("ann", "a new field").expect("an act");
    let built = service.rebuild_by("ledger", service.log(), &act, CancellationToken::new()).await.expect("rebuilt");
    assert_eq!(&*built.expect("not interrupted").reader.name, "ledger");
    let acts = store.acts(None, 10).await.expect("read");
    let acts: Vec<_> = acts.iter().map(|act| (&*act.what, &*act.reader, &*act.actor)).collect();
    assert_eq!(acts, [("promote", "ledger", "ann"), ("rebuild", "ledger", "ann")]);
    ends(&service).await;
}

#[tokio::test]
async fn how_far_a_rebuild_has_folded_and_what_has_failed_is_told_by_name() {
    let service = builder(&MemoryStore::new()).projection(Ledger::<1>::default()).start().await.expect("it starts");
    let report = service.parts().iter().find(|part| part.name == "ledger").expect("registered");
    let report = report.projector().expect("a projector").report();
    assert_eq!(service.rebuilding("ledger").expect("known"), None);
    report.built(Some(Position::new(7)));
    assert_eq!(service.rebuilding("ledger").expect("known"), Some(Position::new(7)));
    assert_eq!(service.failures_after("ledger", 0).expect("known"), (0, Vec::new()));
    report.failed(&EngineError::UniqueInShards);
    let (count, failures) = service.failures_after("ledger", 0).expect("known");
    assert_eq!((count, failures.len()), (1, 1));
    ends(&service).await;
}

#[tokio::test]
async fn a_watch_of_a_service_continues_where_another_one_was() {
    let service = builder(&MemoryStore::new()).projection(Histories).start().await.expect("it starts");
    let first = deposit(&service, 1).await;
    let model = service.read_model::<Histories>().patience(PATIENCE);
    let mut watch = model.watch("a", Since::Now).expect("a key");
    let state = loop {
        let change = watch.next().await.expect("a change");
        if change.document.is_some() {
            break change;
        }
    };
    let last = deposit(&service, 2).await;
    assert!(first < last);
    let mut watch = model.watch("a", Since::from(state.token)).expect("a key");
    let change = watch.next().await.expect("a change");
    assert_eq!((change.document, change.token.map(|token| token.position)), (Some(vec![1, 2]), Some(last)));
    ends(&service).await;
}
