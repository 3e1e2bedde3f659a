//! The database is killed. This is a test binary of its own because cargo runs binaries one after the other, and a crash of the
//! server disturbs every test that runs at the same time.

use std::{env, time::Duration};

use es_core::{Append, EventData, EventStore, Expected, NewEvent, Position, StreamId, Version};
use es_postgres::PostgresStore;
use tests::checker::crash_server;
use tokio::task::JoinSet;
use uuid::Uuid;

/// `cargo xtask test` sets it when it has started the server itself. No other server is crashed.
const MAY_CRASH: &str = "ES_POSTGRES_MAY_CRASH";

/// R5, R6: `kill -9` of the database in the middle of appends; each is sent again under the same ids.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_a_killed_database_loses_and_repeats_nothing() {
    let url = env::var("DATABASE_URL").expect("DATABASE_URL is not set: run `cargo xtask test`");
    if env::var_os(MAY_CRASH).is_none() {
        eprintln!("left out: the server at DATABASE_URL may have other users; set {MAY_CRASH} to crash it");
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
        // It waits for the recovery: later tests need the server.
        crash_server().await;
    }
    writers.join_all().await;

    let log = store.read_log(Position::ZERO, 10_000).await.expect("the store is up again");
    assert_eq!(log.len(), 1_600, "no event is lost or repeated");
    for (index, event) in log.iter().enumerate() {
        assert_eq!(event.position.get(), index as u64 + 1, "dense");
    }
    store.close().await.expect("closed");
}

fn event() -> NewEvent {
    let data = EventData { name: "crash.survived".into(), schema_version: 1, payload: "{}".into() };
    NewEvent::new(data)
}
