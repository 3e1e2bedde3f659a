//! Inline read models.

use super::*;
use crate::{
    read::{failure::FailurePolicy, projector::Projector, source::SourceError},
    service::ServiceStore,
};

#[tokio::test]
async fn an_inline_read_model_has_one_shard_and_parks_no_keys_and_no_projection_forwards() {
    let builder = || Service::builder("accounts", MemoryStore::new()).aggregate::<Account>();
    let sharded = builder().inline_with(Histories, |projector| projector.shards(2)).start().await;
    assert!(matches!(sharded, Err(StartError::InlineShards { name: "histories" })), "{sharded:?}");
    let parks = builder().inline_with(Histories, |projector| projector.on_failure(FailurePolicy::park())).start().await;
    assert!(matches!(parks, Err(StartError::InlineParks { name: "histories" })), "{parks:?}");
    let forwards = |projector: Projector<Histories>| projector.on_failure(FailurePolicy::forward());
    for refused in [builder().inline_with(Histories, forwards), builder().projection_with(Histories, forwards)] {
        let refused = refused.start().await;
        let Err(StartError::Projection { cause, .. }) = refused else { panic!("{refused:?}") };
        assert!(matches!(*cause, EngineError::Source(SourceError::CannotForward)), "{cause:?}");
    }
    let service = builder().on_failure(FailurePolicy::park()).inline(Histories).start().await.expect("it starts");
    service.shutdown(PATIENCE).await.expect("it ends");
}

#[tokio::test]
async fn r13_an_inline_read_model_follows_the_log_whatever_the_other_readers_follow() {
    let store = MemoryStore::new();
    // The source of the other readers delivers nothing.
    let service = builder(&store).source(Refusing::for_ever()).inline(Histories).start().await.expect("it starts");
    let model = service.read_model::<Histories>().patience(PATIENCE);
    model.get("a").await.expect("it serves");
    service.repository::<Account>().execute("a", AccountCommand::Deposit(1)).await.expect("executed");
    assert_eq!(model.get("a").await.expect("it serves"), Some(vec![1]));
    service.shutdown(PATIENCE).await.expect("it ends");
    drop(service);
    assert!(store.inline.is_empty(), "the store folds nothing any more");
}

#[tokio::test]
async fn a_store_that_is_chosen_at_run_time_folds_inline_read_models() {
    let store: Arc<dyn ServiceStore> = Arc::new(MemoryStore::new());
    let service = Service::builder("accounts", store.clone()).inline(Histories).start().await.expect("it starts");
    assert_eq!(store.inline_models().expect("it folds some").names(), ["histories"]);
    service.shutdown(PATIENCE).await.expect("it ends");
}
