//! Connections that break in the middle of things.

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use es_core::{
    Append, AppendError, EventStore, Expected, Position, Version,
    backend::{
        Changes, Checkpoint, Documents, GenerationState, Generations, Leases, Promotion, Shard, SnapshotStore, Takeover,
    },
};
use es_postgres::{ConnectError, OutcomeUnknown, PostgresStore};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use uuid::Uuid;

use super::server::{Schema, append, appended, event, exact, log, soon, stream, wire};

/// Cuts the writer's connection ten times while eight callers append. The batch that was under way is
/// sent again with the same ids, and no caller notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r5_terminated_backends_lose_and_repeat_nothing() {
    let schema = Schema::new();
    let store = schema.store().await;
    let (acknowledged, blows) = (watch::Sender::new(0), watch::Sender::new(0));
    let killer = {
        let (mut acknowledged, mut session) = (acknowledged.subscribe(), schema.session().await);
        let kill = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
              WHERE application_name = '{}' AND state = 'active' AND query ~ 'append_(all|batch)|take_append_lock'",
            schema.0
        );
        let blows = blows.clone();
        async move {
            for round in 0..10 {
                // After each blow a few appends must come through before the next one.
                acknowledged.wait_for(|count| *count > round * 10).await.unwrap();
                while session.number(&kill).await == 0 {}
                blows.send_modify(|count| *count += 1);
            }
        }
    };
    let killer = tokio::spawn(killer);
    let mut writers = JoinSet::new();
    for writer in 0..8_u64 {
        let (store, acknowledged, blows) = (store.clone(), acknowledged.clone(), blows.subscribe());
        writers.spawn(async move {
            let mut outcomes = Vec::new();
            while *blows.borrow() < 10 {
                // Half of them are known by the version after which they stand, half are remembered.
                let version = outcomes.len() as u64 * 2;
                let expected = if writer % 2 == 0 { exact(version) } else { Expected::Any };
                outcomes.push(store.append(append(&format!("w{writer}"), expected, 2)).await.unwrap());
                acknowledged.send_modify(|count| *count += 1);
            }
            outcomes
        });
    }
    let outcomes: Vec<_> = soon(writers.join_all()).await.into_iter().flatten().collect();
    soon(killer).await.unwrap();
    let positions: HashSet<Position> = outcomes.iter().map(|outcome| outcome.position).collect();
    assert_eq!(positions.len(), outcomes.len());
    assert_eq!(log(&store).await.len(), outcomes.len() * 2);
}

/// The server has committed, and the connection breaks before the writer hears of it.
#[tokio::test(flavor = "multi_thread")]
async fn r5_an_append_whose_answer_is_lost_is_written_once() {
    let schema = Schema::new();
    let wire = wire().await;
    let store = schema.options_through(wire.port).connect().await.unwrap();
    // So that the statements are prepared: the answer that is cut is to be that of their execution.
    store.append(append("first", exact(0), 2)).await.unwrap();
    store.append(append("first", Expected::Any, 1)).await.unwrap();
    for (id, expected, position) in [("exact", exact(0), 5), ("any", Expected::Any, 7)] {
        let append = append(id, expected, 2);
        wire.cut_next_answer();
        // The second attempt finds the work of the first, and cannot tell that it was its own.
        let repeated = es_core::Appended { repeated: true, ..appended(2, position) };
        assert_eq!(soon(store.append(append.clone())).await.unwrap(), repeated);
        assert!(wire.has_cut());
        assert_eq!(store.append(append).await.unwrap(), repeated);
    }
    assert_eq!(log(&store).await.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn r5_an_append_that_dies_with_its_session_is_sent_again() {
    let schema = Schema::new();
    let store = schema.store().await;
    let mut session = schema.session().await;
    // The trigger commits nothing, but it kills the session right after the first one's insert.
    session
        .run(
            "CREATE SEQUENCE attempts;
             CREATE FUNCTION die_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF nextval(TG_ARGV[0]::regclass) = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
                 RETURN NULL; END $$",
        )
        .await;
    let arm = format!(
        "CREATE TRIGGER die_once AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION die_once('{}.attempts')",
        schema.0
    );
    session.run(&arm).await;
    assert_eq!(soon(store.append(append("a", exact(0), 2))).await.unwrap(), appended(2, 2));
    assert_eq!(session.number("SELECT last_value FROM attempts").await, 2);
    assert_eq!(log(&store).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_finds_no_server_gives_up_in_bounded_time() {
    let schema = Schema::new();
    let store = schema.options().patience(Duration::from_millis(50)).connect().await.unwrap();
    let mut session = schema.session().await;
    // A store whose table is locked away answers as one that is down: not at all.
    session.run("ALTER TABLE events RENAME TO gone").await;
    let outcome = soon(store.append(append("a", exact(0), 1))).await;
    let Err(AppendError::Store(cause)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(
        cause.downcast_ref::<OutcomeUnknown>().unwrap().attempts,
        2,
        "another connection does not have it either"
    );
    session.run("ALTER TABLE gone RENAME TO events").await;
    session
        .run(
            "CREATE FUNCTION busy() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN RAISE EXCEPTION 'busy' USING ERRCODE = '53300'; END $$;
                 CREATE TRIGGER busy BEFORE INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION busy()",
        )
        .await;
    let outcome = soon(store.append(append("a", exact(0), 1))).await;
    let Err(AppendError::Store(cause)) = outcome else { panic!("{outcome:?}") };
    assert!(cause.downcast_ref::<OutcomeUnknown>().unwrap().attempts > 1);
    session.run("DROP TRIGGER busy ON events").await;
    assert_eq!(soon(store.append(append("a", exact(0), 1))).await.unwrap(), appended(1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_on_after_idle_connections_were_cut() {
    let schema = Schema::new();
    let store = schema.store().await;
    store.append(append("a", exact(0), 3)).await.unwrap();
    assert_eq!(log(&store).await.len(), 3);
    let mut session = schema.session().await;
    let ours = format!("FROM pg_stat_activity WHERE application_name = '{}'", schema.0);
    let killed = session.number(&format!("SELECT count(pg_terminate_backend(pid)) {ours}")).await;
    assert!(killed >= 2, "the writer's and a reader's");
    assert_eq!(log(&store).await.len(), 3);
    assert_eq!(store.append(append("a", exact(3), 1)).await.unwrap(), appended(4, 4));
    assert!(store.generations("nothing").await.unwrap().serving.map(|serving| serving.generation).is_none());
}

/// A read whose future is dropped while the server works on it: the answer that still comes must not
/// reach the next reader.
#[tokio::test(flavor = "multi_thread")]
async fn r7_a_cancelled_read_leaves_no_trace() {
    let schema = Schema::new();
    let store = schema.options().reader_connections(1).connect().await.unwrap();
    store.append(append("a", exact(0), 5)).await.unwrap();
    let (mut holder, mut watcher) = (schema.session().await, schema.session().await);
    holder.run("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await;
    let mut read = Box::pin(store.read_log(Position::ZERO, 10));
    tokio::select! { biased; _ = &mut read => panic!("the table is locked"), () = watcher.until_blocked(&schema, 1) => {} }
    drop(read);
    holder.run("COMMIT").await;
    let read = soon(store.read_stream(&stream("a"), Version::new(4), 10)).await.unwrap();
    assert_eq!(read.len(), 1);
}

/// The limit of the tests that must run into it: long enough for everything that is answered.
const SHORT: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn r16_a_server_that_never_answers_is_given_up() {
    let schema = Schema::new();
    let wire = wire().await;
    let options = schema.options_through(wire.port).answer_within(SHORT).reader_connections(2);
    let store = options.connect().await.unwrap();
    store.append(append("a", exact(0), 3)).await.unwrap();
    assert_eq!(log(&store).await.len(), 3, "one connection is there, the others have yet to be opened");
    wire.mute(true);
    // More than there are connections, so that some do not even get one.
    let stream = stream("a");
    let stuck = async {
        tokio::join!(
            store.read_log(Position::ZERO, 10),
            store.wait_past(Position::new(3)),
            store.load_snapshot(&stream),
            store.get("model", "key"),
            store.ensure_generation("model", 1, GenerationState::Serving, "projection", &[]),
        )
    };
    let (read, waited, loaded, got, ensured) = soon(stuck).await;
    assert!(read.is_err() && waited.is_err() && loaded.is_err() && got.is_err() && ensured.is_err());
    wire.mute(false);
    // No answer of then reaches a question of now.
    assert_eq!(log(&store).await.len(), 3);
    assert_eq!(store.get("model", "key").await.unwrap(), None);
    assert!(store.load_snapshot(&stream).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_a_server_that_accepts_and_stays_silent_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://user@{}/db?sslmode=disable", silent.local_addr().unwrap());
    let outcome = soon(PostgresStore::options(&url).answer_within(Duration::from_millis(50)).connect()).await;
    assert!(matches!(outcome, Err(ConnectError::Connect(_))), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_the_server_too_gives_up_a_read_that_takes_too_long() {
    let schema = Schema::new();
    let store = schema.options().answer_within(SHORT).reader_connections(1).connect().await.unwrap();
    store.append(append("a", exact(0), 3)).await.unwrap();
    let (mut holder, mut watcher) = (schema.session().await, schema.session().await);
    holder.run("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await;
    assert!(soon(store.read_log(Position::ZERO, 10)).await.is_err());
    let idle = format!(
        "SELECT (count(*) = 0)::int::bigint FROM pg_stat_activity WHERE application_name = '{}' AND state = 'active'",
        schema.0
    );
    watcher.until(&idle, 1).await;
    holder.run("COMMIT").await;
    assert_eq!(log(&store).await.len(), 3);
}

/// The documents of a large read model are deleted in statements that may take long. The worker that has
/// promoted its generation goes on at once (seen to fail where it waited for the deletion).
#[tokio::test(flavor = "multi_thread")]
async fn r13_the_sweep_after_a_promotion_may_take_long_and_the_promotion_does_not() {
    let schema = Schema::new();
    let store = schema.options().answer_within(SHORT).connect().await.unwrap();
    let (shard, ttl) = (Shard::from("log"), Duration::from_mins(1));
    for state in [GenerationState::Serving, GenerationState::Building] {
        let generation = store.ensure_generation("model", 1, state, "projection", &[]).await.unwrap();
        store.ensure_shards(&generation.reader, std::slice::from_ref(&shard)).await.unwrap();
        let lease =
            store.acquire(&generation.reader, &shard, Uuid::now_v7(), Takeover::Always, ttl).await.unwrap().unwrap();
        let changes = Changes {
            upserts: vec![("key".to_owned(), Bytes::from_static(b"1"))],
            checkpoint: Checkpoint { position: Position::new(1), ..Checkpoint::default() },
            ..Changes::default()
        };
        store.commit(&lease, changes).await.unwrap();
    }
    let building = store.ensure_generation("model", 1, GenerationState::Building, "projection", &[]).await.unwrap();
    let (mut holder, mut watcher) = (schema.session().await, schema.session().await);
    holder.run("BEGIN; SELECT FROM documents FOR UPDATE").await;
    soon(store.promote(&building, Promotion::Automatic)).await.unwrap();
    let slow = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}' AND wait_event_type = 'Lock'
            AND clock_timestamp() - query_start > interval '{} ms'",
        schema.0,
        SHORT.as_millis() * 3 / 2
    );
    watcher.until(&slow, 1).await;
    holder.run("COMMIT").await;
    // Only the new generation's is left.
    watcher.until("SELECT (count(*) = 1)::int::bigint FROM documents", 1).await;
}

/// R17: one caller's events fill the queue: the next one waits outside and leaves nothing when it goes.
#[tokio::test(flavor = "multi_thread")]
async fn r17_a_full_queue_makes_callers_wait() {
    let schema = Schema::new();
    let store = schema.options().queue_bytes(1_000).connect().await.unwrap();
    let (mut holder, mut watcher) = (schema.session().await, schema.session().await);
    holder.hold_append_lock().await;
    let large = Append::new(stream("large"), exact(0), vec![event(&format!("\"{}\"", "x".repeat(5_000)))]);
    let mut first = Box::pin(store.append(large));
    tokio::select! { biased; _ = &mut first => panic!("the append lock is held"), () = watcher.until_blocked(&schema, 1) => {} }
    let mut outside = Box::pin(store.append(append("outside", exact(0), 1)));
    tokio::select! { biased; _ = &mut outside => panic!("there is no room"), () = async {} => {} }
    holder.run("COMMIT").await;
    assert_eq!(soon(first).await.unwrap(), appended(1, 1));
    assert_eq!(soon(outside).await.unwrap(), appended(1, 2));
}
