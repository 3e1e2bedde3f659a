//! The database dies. A binary of its own: cargo runs these one after the other, and a crash of the
//! server is felt by every test that runs beside it.

use std::{env, time::Duration};

use es_core::{Append, EventData, EventStore, Expected, NewEvent, Position, StreamId, Version};
use es_postgres::PostgresStore;
use tests::checker::crash_server;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Set by `cargo xtask test` when the server is its own: nobody else's is crashed.
const MAY_CRASH: &str = "ES_POSTGRES_MAY_CRASH";

/// R5, R6: `kill -9` of the database in the middle of appends; each is sent again under the same ids.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_a_killed_database_loses_and_repeats_nothing() {
    let url = env::var("DATABASE_URL").expect("DATABASE_URL is not set: run `cargo xtask test`");
    if env::var_os(MAY_CRASH).is_none() {
        eprintln!("left out: the server at DATABASE_URL may be somebody's; set {MAY_CRASH} to have it crashed");
        return;
    }
    let schema = format!("t{}", &Uuid::now_v7().simple().to_string()[20..]);
    let store = PostgresStore::options(&url).schema(schema).patience(Duration::from_mins(1)).connect().await;
    let store = store.expect("the server is up");

    let mut writers = JoinSet::new();
    for writer in 0..16 {
        let store = store.clone();
        writers.spawn(async move {
            let stream = StreamId::new("crash", &writer.to_string()).expect("a valid name");
            for version in 0..100 {
                let expected = Expected::Exact(Version::new(version));
                let append = Append::new(stream.clone(), expected, vec![event()]);
                store.append(append).await.expect("it outlives the crash");
            }
        });
    }
    for position in [200, 600, 1_000] {
        // While the server recovers, reads fail.
        while store.wait_past(Position::new(position)).await.is_err() {
            tokio::task::yield_now().await;
        }
        // It waits for the recovery: what comes after this test needs a server that is up.
        crash_server().await;
    }
    writers.join_all().await;

    let log = store.read_log(Position::ZERO, 10_000).await.expect("the store is up again");
    assert_eq!(log.len(), 1_600, "nothing is lost, nothing is there twice");
    for (index, event) in log.iter().enumerate() {
        assert_eq!(event.position.get(), index as u64 + 1, "dense");
    }
    store.close().await;
}

fn event() -> NewEvent {
    let data = EventData { name: "crash.survived".into(), schema_version: 1, payload: "{}".into() };
    NewEvent::new(data)
}
