//! Reads of queries that share a statement.

use es_core::{Append, EventQuery, EventStore, Expected, Position, ReadError, Tag};
use futures_util::future::join_all;

use super::server::{Schema, event, soon, stream};

fn query(number: u64) -> EventQuery {
    EventQuery::tagged([Tag::new(format!("number:{number}")).unwrap()])
}

/// A few reads go alone. While they wait for a lock of the server, all others are asked for, and one is given up: they become one
/// statement.
#[tokio::test(flavor = "multi_thread")]
async fn r14_a_damaged_event_fails_only_the_read_of_its_own_query() {
    let schema = Schema::new();
    let store = schema.store().await;
    for number in 1..=40 {
        let tag = Tag::new(format!("number:{number}")).unwrap();
        let append = Append::new(stream("a"), Expected::Any, vec![event("{}").with_tags([tag])]);
        store.append(append).await.unwrap();
    }
    let mut session = schema.session().await;
    session.run("ALTER TABLE events DISABLE TRIGGER events_unchanging").await;
    session.run(r"UPDATE events SET metadata = '\xff' WHERE position = 17").await;
    session.run("BEGIN; LOCK TABLE event_tags IN ACCESS EXCLUSIVE MODE").await;
    let read = |number| {
        let store = store.clone();
        async move { (number, store.read_matching(&query(number), Position::ZERO, 10).await) }
    };
    let alone = tokio::spawn(join_all((1..=4).map(read)));
    session.until_blocked(&schema, 4).await;
    let mut given_up = Box::pin(read(9));
    let mut others = Box::pin(join_all((10..=40).map(read)));
    // All are asked for before the lock is released: the first poll of each asks.
    tokio::select! {
        biased;
        _ = &mut given_up => unreachable!("the table is locked"),
        _ = &mut others => unreachable!("the table is locked"),
        () = std::future::ready(()) => {}
    }
    drop(given_up);
    session.run("COMMIT").await;
    let found = soon(alone).await.unwrap().into_iter().chain(soon(others).await);
    for (number, found) in found {
        match found {
            Ok(events) => {
                let positions: Vec<_> = events.iter().map(|event| event.position.get()).collect();
                assert_eq!((positions, number == 17), (vec![number], false));
            }
            Err(error) => {
                let is_own = matches!(error, ReadError::Damaged { position, .. } if position == Position::new(17));
                assert!(is_own && number == 17, "{number}: {error:?}");
            }
        }
    }
}
