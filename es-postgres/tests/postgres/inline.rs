//! Read models that are folded in the transaction of each append, over connections that break.

use std::time::Duration;

use es_core::{
    AppendError, Expected, KeyRange, Position, Service, ServiceStore,
    testing::{
        account::{Account, AccountCommand, Histories},
        project,
    },
};
use es_postgres::{InlineModelsMissed, PostgresStore};
use sqlx::{Connection, PgConnection};
use tokio::{sync::watch, task::JoinSet};

use super::server::{SOON, Schema, append, log, soon, url, wire};

/// A service on `store` whose read model serves.
async fn service(store: &PostgresStore) -> Service {
    let builder = Service::builder("accounts", store.clone()).aggregate::<Account>();
    let service = builder.inline(Histories).start().await.unwrap();
    service.read_model::<Histories>().patience(SOON).get("none").await.unwrap();
    service
}

async fn deposit(service: &Service, id: &str) {
    service.repository::<Account>().execute(id, AccountCommand::Deposit(1)).await.unwrap();
}

async fn assert_is_the_fold(service: &Service) {
    let store = service.store();
    assert_eq!(store.reached("histories").await.unwrap(), store.head().await.unwrap());
    let events = store.read_log(Position::ZERO, 100_000).await.unwrap();
    let truth: Vec<_> = project(&Histories, &events).unwrap().into_iter().collect();
    let found = service.read_model::<Histories>().scan(KeyRange::default(), 100_000).await.unwrap();
    assert_eq!(found.documents, truth);
}

/// Ends the sessions that append, in the middle of their transactions.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r5_r9_terminated_backends_leave_the_fold_of_the_log() {
    let schema = Schema::new();
    let store = schema.store().await;
    let service = service(&store).await;
    let (acknowledged, kills) = (watch::Sender::new(0), watch::Sender::new(0));
    let mut session = schema.session().await;
    let kill = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
          WHERE application_name = '{}' AND xact_start IS NOT NULL
            AND (query ~ 'append_(all|batch)|FOR UPDATE OF c|commit_changes' OR state = 'idle in transaction')",
        schema.0
    );
    let killer = tokio::spawn({
        let (mut acknowledged, kills) = (acknowledged.subscribe(), kills.clone());
        async move {
            for round in 0..10 {
                acknowledged.wait_for(|count| *count > round * 10).await.unwrap();
                while session.number(&kill).await == 0 {}
                kills.send_modify(|count| *count += 1);
            }
        }
    });
    let mut clients = JoinSet::new();
    for client in 0..8 {
        let (service, acknowledged, kills) = (service.clone(), acknowledged.clone(), kills.subscribe());
        clients.spawn(async move {
            let mut written = 0;
            while *kills.borrow() < 10 {
                deposit(&service, &format!("a{client}")).await;
                written += 1;
                acknowledged.send_modify(|count| *count += 1);
            }
            written
        });
    }
    let written: usize = soon(clients.join_all()).await.into_iter().sum();
    soon(killer).await.unwrap();
    assert_eq!(log(&store).await.len(), written);
    assert_is_the_fold(&service).await;
    service.shutdown(SOON).await.unwrap();
}

/// The server has committed, and the connection breaks before the writer hears of it: the second attempt finds both the events and the
/// documents.
#[tokio::test(flavor = "multi_thread")]
async fn r5_r9_a_commit_whose_answer_is_lost_is_folded_once() {
    let schema = Schema::new();
    let wire = wire().await;
    let store = schema.options_through(wire.port).connect().await.unwrap();
    let service = service(&store).await;
    for _ in 0..3 {
        deposit(&service, "a").await;
        wire.cut_answer_to(|request| request.windows(6).any(|text| text == b"COMMIT"));
        soon(deposit(&service, "a")).await;
        assert!(wire.has_cut());
    }
    assert_eq!(log(&store).await.len(), 6);
    assert_is_the_fold(&service).await;
    service.shutdown(SOON).await.unwrap();
}

#[tokio::test]
async fn r9_an_append_in_the_callers_transaction_is_refused_where_read_models_are_inline() {
    let schema = Schema::new();
    let store = schema.store().await;
    let service = service(&store).await;
    let mut connection = PgConnection::connect(&url()).await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    let refused = store.append_in(&mut transaction, append("a", Expected::Any, 1)).await;
    let Err(AppendError::Refused(cause)) = refused else { panic!("{refused:?}") };
    assert_eq!(cause.downcast_ref(), Some(&InlineModelsMissed { names: vec!["histories"] }));
    drop(service);
    while !store.inline_models().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store.append_in(&mut transaction, append("a", Expected::Any, 1)).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(log(&store).await.len(), 1);
}
