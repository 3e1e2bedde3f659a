//! Large appends beside small ones (R17).

use std::{
    pin::Pin,
    task::{Context, Waker},
};

use es_core::{Append, EventStore, Expected, Position};

use super::server::{Schema, Session, append, appended, event, exact, log, soon, stream};

/// An append of three large events.
fn large(id: &str, expected: Expected) -> Append {
    let payload = format!("\"{}\"", "x".repeat(900_000));
    Append::new(stream(id), expected, (0..3).map(|_| event(&payload)).collect())
}

/// Lets `future` go as far as it can now; whether it is not done.
fn waits(future: &mut (impl Future + Unpin)) -> bool {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// Makes the server wait for `holder`'s transaction before it writes a large event.
async fn hold_large_events(schema: &Schema, holder: &mut Session) {
    let key = format!("hashtext('{}')", schema.0);
    let hold = format!(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock_shared({key}); RETURN NEW; END $$;
         CREATE TRIGGER hold BEFORE INSERT ON events FOR EACH ROW WHEN (length(NEW.payload) > 500000)
             EXECUTE FUNCTION hold()"
    );
    holder.run(&hold).await;
    holder.run(&format!("BEGIN; SELECT pg_advisory_xact_lock({key})")).await;
}

/// While the server writes a large append, those to other streams are answered; those to its own stream wait for it, and so
/// does the next large one. (Seen to fail where one writer sends all: none was answered.)
#[tokio::test(flavor = "multi_thread")]
async fn r17_small_appends_go_on_while_a_large_one_is_written() {
    let schema = Schema::new();
    let store = schema.store().await;
    let (mut holder, mut watcher) = (schema.session().await, schema.session().await);
    store.append(append("small", exact(0), 1)).await.unwrap();
    hold_large_events(&schema, &mut holder).await;

    let mut first = Box::pin(store.append(large("large", exact(0))));
    tokio::select! { biased; _ = &mut first => panic!("it is held"), () = watcher.until_blocked(&schema, 1) => {} }
    let mut follower = Box::pin(store.append(append("large", exact(3), 1)));
    assert!(waits(&mut follower));
    let mut second = Box::pin(store.append(large("other", exact(0))));
    assert!(waits(&mut second));
    for version in 1..30 {
        let small = soon(store.append(append("small", exact(version), 1))).await.unwrap();
        assert_eq!(small, appended(version + 1, version + 1), "nothing of the large one is there");
    }
    assert_eq!(
        soon(store.append_together(vec![append("a", Expected::Any, 1), append("b", exact(0), 1)])).await.unwrap().len(),
        2
    );
    assert!(waits(&mut follower), "it keeps its place after the large one");
    assert!(waits(&mut second), "one large one at a time");
    assert_eq!(log(&store).await.len(), 32);

    holder.run("COMMIT").await;
    assert_eq!(soon(first).await.unwrap(), appended(3, 35));
    assert_eq!(soon(follower).await.unwrap().version.get(), 4);
    assert_eq!(soon(second).await.unwrap().version.get(), 3);
    let log = log(&store).await;
    assert!(log.iter().zip(1..).all(|((position, _), number)| *position == number), "a gap");
    assert_eq!(log.len(), 39);
}

/// The events of a large append that is refused are not there, nor those of one whose caller has gone before it was sent; and
/// closing waits for the one that is on its way.
#[tokio::test(flavor = "multi_thread")]
async fn r7_r16_a_large_append_ends_like_a_small_one() {
    let schema = Schema::new();
    let store = schema.store().await;
    let (mut holder, mut watcher) = (schema.session().await, schema.session().await);
    hold_large_events(&schema, &mut holder).await;
    let mut first = Box::pin(store.append(large("a", exact(0))));
    tokio::select! { biased; _ = &mut first => panic!("it is held"), () = watcher.until_blocked(&schema, 1) => {} }
    let mut dropped = Box::pin(store.append(large("dropped", exact(0))));
    assert!(waits(&mut dropped));
    let mut stale = Box::pin(store.append(large("a", exact(1))));
    assert!(waits(&mut stale));
    drop(dropped);
    // Its caller is gone, but it was sent.
    drop(first);
    let mut closing = Box::pin(store.close());
    assert!(waits(&mut closing));
    holder.run("COMMIT").await;
    assert!(soon(stale).await.is_err(), "it expected one event, and there are three");
    soon(closing).await.unwrap();
    assert_eq!(log(&schema.store().await).await, [(1, "a".into()), (2, "a".into()), (3, "a".into())]);
    assert_eq!(watcher.number("SELECT count(*) FROM events").await, 3);
}

/// What a session knows of the log by itself is wrong once the other one has written. That makes it slower for a few appends
/// and not for good, and costs no error on the server. (Seen to fail where the writer is not told of large appends: it took 16
/// appends, after an error.)
#[tokio::test(flavor = "multi_thread")]
async fn r17_a_large_append_makes_the_writer_slower_for_a_few_appends_only() {
    let schema = Schema::new();
    let store = schema.store().await;
    let mut watcher = schema.session().await;
    let optimistic = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}' AND query LIKE 'INSERT INTO events%'
            AND query NOT LIKE '%ON CONFLICT%'",
        schema.0
    );
    let mut version = 0;
    for round in 0..3 {
        for _ in 0..12 {
            store.append(append("small", exact(version), 1)).await.unwrap();
            version += 1;
        }
        watcher.until(&optimistic, 1).await;
        store.append(large("large", exact(3 * round))).await.unwrap();
        store.append(append("small", exact(version), 1)).await.unwrap();
        version += 1;
        assert_eq!(watcher.number(&optimistic).await, 0, "it does not know where the log ends");
    }
    assert_eq!(store.head().await.unwrap(), Position::new(version + 9));
}
