//! The order of the log under everything that breaks other orders (R3).

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use es_core::{AppendError, EventStore, Expected, Position, ReadError};
use es_postgres::StaleSnapshot;
use tokio::task::JoinSet;

use super::server::{Schema, Session, append, appended, exact, log, soon, stream};

/// A reader that remembers one number, against two processes and transactions of an application, a
/// third of which roll back.
///
/// It can lose: with `take_append_lock()` emptied and positions drawn from a sequence instead, the reader met
/// a gap in five of five runs, although each append was one event and nothing was rolled back. With
/// `take_append_lock()` emptied and nothing else, the primary key refused an `append_in` in three of three. With the append lock and the
/// last position taken out of `append_all()` alone, in favour of a sequence, the reader met a gap in one of three.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r3_a_naive_reader_sees_a_dense_prefix_under_concurrent_appends_and_rollbacks() {
    let schema = Schema::new();
    let stores = [schema.store().await, schema.store().await];
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (store, done) = (stores[0].clone(), done.clone());
        async move {
            let mut seen = Vec::new();
            loop {
                let last_round = done.load(Ordering::SeqCst);
                let after = Position::new(seen.len() as u64);
                // read_log itself refuses a gap.
                let page = store.read_log(after, 7).await.unwrap();
                if page.is_empty() && last_round {
                    return seen;
                }
                seen.extend(page);
            }
        }
    });
    let mut writers = JoinSet::new();
    for writer in 0..6_u64 {
        let store = stores[usize::try_from(writer).unwrap() % 2].clone();
        writers.spawn(async move {
            let mut written = 0;
            for number in 0..40 {
                let events = 1 + (writer + number) % 3;
                // Half of them write after their own events, which takes the short ways.
                let (id, expected) = match writer {
                    0..3 => (format!("own{writer}"), exact(written)),
                    _ => (format!("s{}", number % 5), Expected::Any),
                };
                store.append(append(&id, expected, usize::try_from(events).unwrap())).await.unwrap();
                written += events;
            }
        });
    }
    for writer in 0..3_u64 {
        let (store, mut session) = (stores[0].clone(), schema.session().await);
        writers.spawn(async move {
            for number in 0..30 {
                session.run("BEGIN").await;
                store.append_in(&mut session.0, append(&format!("t{writer}"), Expected::Any, 2)).await.unwrap();
                session.run(if number % 3 == 0 { "ROLLBACK" } else { "COMMIT" }).await;
            }
        });
    }
    soon(writers.join_all()).await;
    done.store(true, Ordering::SeqCst);
    let seen = soon(reader).await.unwrap();
    let mut versions = HashMap::new();
    for (index, event) in seen.iter().enumerate() {
        assert_eq!(event.position.get(), index as u64 + 1);
        let version = versions.entry(event.stream.clone()).or_insert(0);
        *version += 1;
        assert_eq!(event.version.get(), *version, "versions agree with positions");
    }
    assert_eq!(versions[&stream("t0")], 40, "what was rolled back left nothing");
    assert_eq!(stores[1].head().await.unwrap().get(), seen.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn r3_an_append_waits_for_an_open_one_and_takes_its_place_if_that_rolls_back() {
    let schema = Schema::new();
    let store = schema.store().await;
    for (end, position) in [("ROLLBACK", 1), ("COMMIT", 3)] {
        let (mut other, mut watcher) = (schema.session().await, schema.session().await);
        other.run("BEGIN").await;
        let open = store.append_in(&mut other.0, append("open", Expected::Any, 1)).await.unwrap();
        let waiting = tokio::spawn({
            let store = store.clone();
            async move { store.append(append("waiting", Expected::Any, 1)).await.unwrap() }
        });
        watcher.until_blocked(&schema, 1).await;
        assert!(store.read_log(Position::new(open.position.get() - 1), 10).await.unwrap().is_empty());
        other.run(end).await;
        assert_eq!(soon(waiting).await.unwrap().position, Position::new(position));
    }
}

/// The snapshot is older than the append lock: the same positions again, which the primary key refuses.
///
/// It can lose: without that key, position 1 was handed out twice.
#[tokio::test(flavor = "multi_thread")]
async fn r3_a_repeatable_read_caller_fails_instead_of_misordering() {
    let schema = Schema::new();
    let store = schema.store().await;
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        let mut old = schema.session().await;
        old.run(&format!("BEGIN ISOLATION LEVEL {isolation}; SELECT count(*) FROM events")).await;
        store.append(append("a", Expected::Any, 1)).await.unwrap();
        let outcome = store.append_in(&mut old.0, append("b", Expected::Any, 1)).await;
        let Err(AppendError::Store(cause)) = outcome else { panic!("{outcome:?}") };
        assert!(cause.is::<StaleSnapshot>(), "{cause:?}");
        old.run("ROLLBACK").await;
    }
    assert_eq!(log(&store).await, [(1, "a".into()), (2, "a".into())]);
}

/// An order by transaction id would stand still until the foreign transaction ends.
///
/// It can lose: with a `read_log.sql` that stops at `pg_snapshot_xmin()`, nothing was there to be read.
#[tokio::test(flavor = "multi_thread")]
async fn r3_a_foreign_open_write_transaction_delays_no_append() {
    let schema = Schema::new();
    let store = schema.store().await;
    let mut foreign = schema.session().await;
    foreign.run("CREATE TABLE foreign_work (n int); BEGIN; INSERT INTO foreign_work VALUES (1)").await;
    let snapshot = append("a", Expected::NoStream, 2);
    assert_eq!(soon(store.append(snapshot)).await.unwrap(), appended(2, 2));
    soon(store.wait_past(Position::new(1))).await.unwrap();
    assert_eq!(log(&store).await.len(), 2);
    foreign.run("COMMIT").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r3_schemas_in_one_database_do_not_share_an_append_lock() {
    let (schema, other) = (Schema::new(), Schema::new());
    let (_store, independent) = (schema.store().await, other.store().await);
    let mut holder = schema.session().await;
    holder.hold_append_lock().await;
    assert_eq!(soon(independent.append(append("a", exact(0), 1))).await.unwrap(), appended(1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn r3_events_of_another_process_wake_a_waiting_reader() {
    let schema = Schema::new();
    let (here, there) = (schema.store().await, schema.store().await);
    let mut waiters = JoinSet::new();
    for _ in 0..5 {
        let here = here.clone();
        waiters.spawn(async move { here.wait_past(Position::ZERO).await.unwrap() });
    }
    // The one who polls for all of them is dropped: another one takes over.
    tokio::select! { biased; _ = here.wait_past(Position::ZERO) => panic!("nothing is there"), () = async {} => {} }
    there.append(append("a", Expected::Any, 1)).await.unwrap();
    soon(waiters.join_all()).await;
}

/// Each of two sessions writes after what it has itself written, and learns that this is no longer the end: of the log, of
/// a stream, or of both.
///
/// It can lose: it did where `append_next()` did not look whether its row was written. (Where nothing was checked that the
/// session had not written, nine other tests failed.)
#[tokio::test(flavor = "multi_thread")]
async fn r2_r3_what_a_session_has_written_is_not_what_is_last() {
    let schema = Schema::new();
    let (here, there) = (schema.store().await, schema.store().await);
    let own = |id, before| append(id, exact(before), 1);
    let actual = |outcome| match outcome {
        Err(AppendError::Conflict(conflict)) => conflict.actual.get(),
        other => panic!("expected a conflict, got {other:?}"),
    };
    // Twice, so that a session is undisturbed and writes to the end that it knows.
    assert_eq!(here.append(own("a", 0)).await.unwrap(), appended(1, 1));
    assert_eq!(here.append(own("a", 1)).await.unwrap(), appended(2, 2));
    // The log has gone on, the stream has not.
    assert_eq!(there.append(own("b", 0)).await.unwrap(), appended(1, 3));
    assert_eq!(here.append(own("a", 2)).await.unwrap(), appended(3, 4));
    // Both have. Of a batch only what does not fit is refused.
    assert_eq!(there.append(own("a", 3)).await.unwrap(), appended(4, 5));
    let (stale, other, fresh) =
        tokio::join!(here.append(own("a", 3)), here.append(own("c", 0)), here.append(own("d", 0)));
    assert_eq!(actual(stale), 4);
    let mut positions = [other.unwrap().position.get(), fresh.unwrap().position.get()];
    positions.sort_unstable();
    assert_eq!(positions, [6, 7]);
    // A stream that others write to is looked at.
    for (store, before) in [(&here, 4), (&there, 5), (&here, 6), (&here, 7)] {
        assert_eq!(actual(store.append(own("a", before - 1)).await), before);
        assert_eq!(store.append(own("a", before)).await.unwrap(), appended(before + 1, before + 4));
    }
    assert_eq!(log(&here).await.len(), 11);
}

/// A session that no other has disturbed for long takes the optimistic insert. Others disturb it: in the log, then in its stream.
///
/// It can lose: it did where the index's refusal of the optimistic insert counted as any other error.
#[tokio::test(flavor = "multi_thread")]
async fn r2_r3_lost_optimistic_insert_is_retried_with_checks() {
    let schema = Schema::new();
    let (here, there) = (schema.store().await, schema.store().await);
    let mut version = 0;
    for undisturbed in [12, 40] {
        for _ in 0..undisturbed {
            here.append(append("a", exact(version), 1)).await.unwrap();
            version += 1;
        }
        let position = there.append(append("b", Expected::Any, 1)).await.unwrap().position.get();
        let behind = here.append(append("a", exact(version), 1)).await.unwrap();
        version += 1;
        assert_eq!(behind, appended(version, position + 1));
    }
    for _ in 0..80 {
        here.append(append("a", exact(version), 1)).await.unwrap();
        version += 1;
    }
    there.append(append("a", exact(version), 1)).await.unwrap();
    let Err(AppendError::Conflict(conflict)) = here.append(append("a", exact(version), 1)).await else { panic!() };
    assert_eq!(conflict.actual.get(), version + 1);
    assert_eq!(log(&here).await.len() as u64, version + 1 + 2);
}

/// Deletes what comes after position `last`.
async fn delete_after(owner: &mut Session, last: u64) {
    let delete = format!(
        "BEGIN; ALTER TABLE events DISABLE TRIGGER events_append_only; DELETE FROM events WHERE position > {last};
         ALTER TABLE events ENABLE TRIGGER events_append_only; COMMIT"
    );
    owner.run(&delete).await;
}

/// What a failover to a replica that lagged behind, or a restore, does to a process that lives on. No session survives
/// either.
pub(crate) async fn lose_the_tail(schema: &Schema, last: u64) {
    let mut owner = schema.session().await;
    delete_after(&mut owner, last).await;
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{}'", schema.0);
    owner.run(&end).await;
}

/// A pooler keeps the connection when the server changes: what the session knew is gone, and it does not know.
///
/// It can lose: where `append_next()` did not ask for the session's mark, there was a hole after position 1.
#[tokio::test(flavor = "multi_thread")]
async fn r3_a_session_that_a_pooler_replaced_knows_nothing() {
    let schema = Schema::new();
    let store = schema.store().await;
    for version in 0..2 {
        store.append(append("a", exact(version), 1)).await.unwrap();
    }
    // A fresh session bears no mark of ours.
    let replace = "CREATE FUNCTION replace_session() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                       PERFORM set_config('search_path', current_schema(), false); RETURN NULL; END $$;
                   CREATE TRIGGER replace_session AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION replace_session()";
    let mut owner = schema.session().await;
    owner.run(replace).await;
    store.append(append("a", exact(2), 1)).await.unwrap();
    delete_after(&mut owner, 1).await;
    let AppendError::Conflict(lost) = store.append(append("a", exact(3), 1)).await.unwrap_err() else { panic!() };
    assert_eq!(lost.actual.get(), 1);
    let (a, b) = tokio::join!(store.append(append("a", exact(3), 1)), store.append(append("b", exact(0), 1)));
    assert!(a.is_err());
    assert_eq!(b.unwrap(), appended(1, 2));
    assert_eq!(log(&store).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn r3_a_reader_is_not_sent_for_events_that_are_lost() {
    let schema = Schema::new();
    let store = schema.store().await;
    store.append(append("a", exact(0), 5)).await.unwrap();
    lose_the_tail(&schema, 3).await;
    let end = Position::new(3);
    // At first it cannot know.
    soon(store.wait_past(end)).await.unwrap();
    assert!(store.read_log(end, 10).await.unwrap().is_empty());
    let mut waiting = Box::pin(store.wait_past(end));
    tokio::select! { biased; _ = &mut waiting => panic!("nothing is there"), () = async {} => {} }
    assert_eq!(store.append(append("a", exact(3), 1)).await.unwrap(), appended(4, 4));
    soon(waiting).await.unwrap();
    assert_eq!(store.read_log(end, 10).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn r3_a_waiting_reader_notices_that_the_tail_is_lost() {
    let schema = Schema::new();
    let store = schema.store().await;
    store.append(append("a", exact(0), 5)).await.unwrap();
    let waiting = tokio::spawn({
        let store = store.clone();
        // Its session may end under it.
        async move { while store.wait_past(Position::new(5)).await.is_err() {} }
    });
    lose_the_tail(&schema, 3).await;
    // Only this store looks for news: until it has, every reader is sent for event 4.
    soon(async {
        loop {
            tokio::select! {
                biased;
                _ = store.wait_past(Position::new(3)) => tokio::task::yield_now().await,
                () = async {} => break,
            }
        }
    })
    .await;
    assert_eq!(store.append(append("a", exact(3), 3)).await.unwrap(), appended(6, 6));
    soon(waiting).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn r3_the_log_refuses_to_be_rewritten() {
    let schema = Schema::new();
    schema.store().await.append(append("a", Expected::Any, 1)).await.unwrap();
    let mut owner = schema.session().await;
    for rewrite in ["UPDATE events SET version = 2", "DELETE FROM events", "TRUNCATE events"] {
        let outcome = sqlx::query(rewrite).execute(&mut owner.0).await;
        assert_eq!(outcome.unwrap_err().as_database_error().unwrap().code().as_deref(), Some("ES001"));
    }
}

/// An append would wait for it too.
#[tokio::test(flavor = "multi_thread")]
async fn a_probe_waits_for_the_append_lock_and_holds_it_no_longer() {
    let schema = Schema::new();
    let store = schema.store().await;
    let (mut holder, mut watcher) = (schema.session().await, schema.session().await);
    holder.hold_append_lock().await;
    let mut probe = Box::pin(store.probe());
    tokio::select! { biased; _ = &mut probe => panic!("it is held"), () = watcher.until_blocked(&schema, 1) => {} }
    holder.run("ROLLBACK").await;
    soon(probe).await.unwrap();
    soon(holder.hold_append_lock()).await;
    holder.run("ROLLBACK").await;
    store.close().await.unwrap();
    assert!(matches!(store.probe().await, Err(ReadError::Store(_))), "it is closed");
}
