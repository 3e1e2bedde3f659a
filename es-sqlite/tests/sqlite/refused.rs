//! Writes that SQLite itself refuses.

use es_core::{Append, AppendError, EventQuery, EventStore, Expected, Position};
use es_sqlite::SqliteStore;
use sqlx::Executor;

use super::fixture::{REFUSE_BAD, append, dense_log, event, foreign_connection, new_path, put, stream, tag};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1_r4_a_refused_append_fails_alone_and_whole() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    let mut foreign = foreign_connection(&path).await;
    foreign.execute(REFUSE_BAD).await.unwrap();
    // Another program holds the lock meanwhile, so all appends are queued and written together.
    foreign.execute("BEGIN IMMEDIATE").await.unwrap();
    let is_bad = |number: usize| number % 7 == 3;
    let appends = (0..40).map(|number| {
        let mut events = vec![event("test.good"), event("test.good")];
        if is_bad(number) {
            events.push(event("test.bad"));
        }
        let append = Append::new(stream(&format!("s{}", number % 5)), Expected::Any, events);
        let store = store.clone();
        async move { store.append(append).await }
    });
    let (outcomes, ()) = futures_util::future::join(futures_util::future::join_all(appends), async {
        // Each has been polled once by now, so it is queued.
        foreign.execute("COMMIT").await.unwrap();
    })
    .await;
    let mut good = 0;
    for (number, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(appended) => {
                good += 1;
                assert!(!is_bad(number));
                assert_eq!(appended.position.get(), good * 2, "the order of the queue");
            }
            Err(AppendError::Refused(_)) => assert!(is_bad(number)),
            Err(other) => panic!("{other:?}"),
        }
    }
    let log = dense_log(&store).await;
    assert_eq!(log.len() as u64, good * 2);
    assert!(log.iter().all(|event| &*event.data.name == "test.good"), "nothing of a refused append is there");
}

#[tokio::test]
async fn r6_a_refused_append_is_not_remembered() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    let mut foreign = foreign_connection(&path).await;
    foreign.execute(REFUSE_BAD).await.unwrap();
    let bad = Append::new(stream("a"), Expected::Any, vec![event("test.bad")]);
    assert!(matches!(store.append(bad.clone()).await, Err(AppendError::Refused(_))));
    foreign.execute("DROP TRIGGER refuse_bad").await.unwrap();
    assert!(!put(&store, bad).await.repeated);
}

#[tokio::test]
async fn r6_after_a_failure_the_same_append_may_be_sent_again() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    let mut foreign = foreign_connection(&path).await;
    foreign.execute("ALTER TABLE commands RENAME TO mislaid").await.unwrap();
    let append = append("a", Expected::Any, 2);
    let outcome = store.append(append.clone()).await;
    assert!(matches!(outcome, Err(AppendError::Store(_))), "{outcome:?}");
    assert!(dense_log(&store).await.is_empty());
    foreign.execute("ALTER TABLE mislaid RENAME TO commands").await.unwrap();
    assert!(!put(&store, append.clone()).await.repeated, "the store works again");
    assert!(put(&store, append).await.repeated);
}

#[tokio::test]
async fn r3_the_file_itself_refuses_to_change_the_log() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    put(&store, append("a", Expected::NoStream, 2)).await;
    let tagged = event("test.happened").with_tags([tag("x")]);
    put(&store, Append::new(stream("a"), Expected::Any, vec![tagged])).await;
    let before = dense_log(&store).await;
    let mut foreign = foreign_connection(&path).await;
    for forbidden in [
        "UPDATE events SET payload = x'00' WHERE position = 2",
        "DELETE FROM events WHERE position = 3",
        "DELETE FROM events",
        "INSERT OR REPLACE INTO events SELECT * FROM events WHERE position = 2",
        "INSERT INTO events SELECT position + 9, stream, version + 3, event_id, name, schema_version, payload, \
         metadata, recorded_at_us FROM events WHERE position = 1",
        "INSERT INTO events SELECT position + 3, stream, version + 9, event_id, name, schema_version, payload, \
         metadata, recorded_at_us FROM events WHERE position = 1",
        "UPDATE event_tags SET tag = 'y'",
        "DELETE FROM event_tags",
        "INSERT OR REPLACE INTO event_tags SELECT tag, position, 'test.other' FROM event_tags",
        "INSERT INTO event_tags VALUES ('x', 4, 'test.happened')",
    ] {
        assert!(foreign.execute(forbidden).await.is_err(), "{forbidden}");
    }
    assert_eq!(dense_log(&store).await, before);
    let query = EventQuery::tagged([tag("x")]).named(["test.happened"]);
    assert_eq!(store.read_matching(&query, Position::ZERO, 9).await.unwrap(), before[2..]);
}
