//! A server that takes over and lacks the end of the log, because it lagged behind or was restored from an
//! older copy.

use std::time::Duration;

use es_core::{
    EngineError, LogSource, Position, Projector, ReadModel, ReadToken, Repository,
    backend::{Documents, SourceError},
    testing::account::{Account, AccountCommand, Histories},
};
use es_postgres::PostgresStore;
use tokio_util::sync::CancellationToken;

use super::{
    append_lock::lose_the_tail,
    server::{Schema, soon},
};

async fn deposits(store: &PostgresStore, id: &str, times: u64) {
    let accounts = Repository::<Account>::new(store.clone());
    for _ in 0..times {
        accounts.execute(id, AccountCommand::Deposit(1)).await.unwrap();
    }
}

fn projector(store: &PostgresStore) -> Projector<Histories> {
    Projector::new(Histories, LogSource::new(store.clone()), store.clone())
}

/// Lets a projector come to position 5 and stop there.
async fn folded(schema: &Schema) -> PostgresStore {
    let store = schema.store().await;
    deposits(&store, "a", 5).await;
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let (projector, shutdown) = (projector(&store), shutdown.clone());
        async move { projector.run(shutdown).await }
    });
    let model = ReadModel::<Histories>::new(store.clone());
    model.wait_for(ReadToken(Position::new(5)), Duration::from_mins(2)).await.unwrap();
    shutdown.cancel();
    soon(running).await.unwrap().unwrap();
    store
}

/// The projector refuses to go on, and leaves the read model as it was.
async fn assert_refused(store: &PostgresStore) {
    let outcome = soon(projector(store).run(CancellationToken::new())).await;
    let Err(EngineError::Source(SourceError::OtherHistory { position })) = outcome else { panic!("{outcome:?}") };
    assert_eq!(position, Position::new(5));
    let model = ReadModel::<Histories>::new(store.clone());
    assert_eq!(model.get("a").await.unwrap(), Some(vec![1, 2, 3, 4, 5]));
}

/// The way out is a rebuild, which does not let readers go back in time: it takes its place when the log has
/// come to where it was.
#[tokio::test(flavor = "multi_thread")]
async fn r3_a_projector_stops_where_the_tail_was_lost() {
    let schema = Schema::new();
    let store = folded(&schema).await;
    lose_the_tail(&schema, 3).await;
    assert_refused(&store).await;
    let former = store.generations("histories").await.unwrap().serving.map(|serving| serving.generation);
    let rebuild = tokio::spawn({
        let projector = projector(&store);
        async move { projector.rebuild(CancellationToken::new()).await }
    });
    let folded =
        "SELECT coalesce(max(position), 0) FROM checkpoints JOIN generations ON id = reader AND state = 'building'";
    schema.session().await.until(folded, 3).await;
    assert_eq!(store.generations("histories").await.unwrap().serving.map(|serving| serving.generation), former);
    deposits(&store, "b", 2).await;
    let promoted = soon(rebuild).await.unwrap().unwrap();
    assert!(
        promoted.is_some()
            && store.generations("histories").await.unwrap().serving.map(|serving| serving.generation) == promoted
    );
    let model = ReadModel::<Histories>::new(store.clone());
    assert_eq!(model.get("a").await.unwrap(), Some(vec![1, 2, 3]));
}

/// The position of the checkpoint is there again, and so are later ones, with other events.
///
/// It can lose: without the comparison of ids in `LogFeed`, events of the other history were folded.
#[tokio::test(flavor = "multi_thread")]
async fn r3_a_projector_does_not_go_on_in_another_history() {
    let schema = Schema::new();
    let store = folded(&schema).await;
    lose_the_tail(&schema, 3).await;
    deposits(&store, "b", 4).await;
    assert_refused(&store).await;
    soon(projector(&store).rebuild(CancellationToken::new())).await.unwrap();
    let model = ReadModel::<Histories>::new(store.clone());
    assert_eq!(model.get("a").await.unwrap(), Some(vec![1, 2, 3]));
}

/// The state is cached at version 5, of which the log has only three events left.
#[tokio::test(flavor = "multi_thread")]
async fn r3_a_repository_does_not_decide_on_events_that_are_lost() {
    let schema = Schema::new();
    let store = schema.store().await;
    let accounts = Repository::<Account>::new(store.clone());
    for _ in 0..5 {
        accounts.execute("a", AccountCommand::Deposit(1)).await.unwrap();
    }
    lose_the_tail(&schema, 3).await;
    accounts.execute("a", AccountCommand::Withdraw(4)).await.unwrap_err();
    let receipt = accounts.execute("a", AccountCommand::Withdraw(3)).await.unwrap();
    assert_eq!((receipt.version.get(), receipt.position.map(Position::get)), (4, Some(4)));
    assert_eq!(accounts.load("a").await.unwrap().state.balance, 0);
}
