//! Leases after the end of their owner, and what they cost (R18).

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use es_core::{
    EngineError, LogSource, Position, Projection, Projector, ReadModel, ReadToken, Repository,
    backend::{Changes, Checkpoint, Documents, GenerationState, Generations, Lease, Leases, Shard, Takeover},
    testing::account::{Account, AccountCommand, Histories, Ledger},
};
use es_postgres::PostgresStore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::server::Schema;

/// Tells the child in which schema to work.
const SCHEMA: &str = "ES_POSTGRES_TAKEN_OVER_SCHEMA";

/// How long a reader waits: only a failure comes near it.
const PATIENCE: Duration = Duration::from_secs(30);

async fn deposit(store: &PostgresStore) -> ReadToken {
    Repository::<Account>::new(store.clone()).execute("a", AccountCommand::Deposit(1)).await.unwrap().token
}

fn project<P: Projection>(projection: P, store: &PostgresStore) -> JoinHandle<Result<(), EngineError>> {
    let store = Arc::new(store.clone());
    let projector = Projector::new(projection, LogSource::new(store.clone()), store);
    tokio::spawn(async move { projector.run(CancellationToken::new()).await })
}

async fn reaches<P: Projection>(store: &PostgresStore, token: ReadToken) {
    ReadModel::<P>::new(store.clone()).wait_for(token, PATIENCE).await.unwrap();
}

/// The child process of the test below; elsewhere it is no test and does nothing. It keeps a read model up to date.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn projects_until_it_is_killed() {
    let Ok(schema) = env::var(SCHEMA) else { return };
    let store = Schema(schema).store().await;
    let _projector = project(Ledger::<1>::default(), &store);
    reaches::<Ledger>(&store, deposit(&store).await).await;
    std::io::stdout().write_all(b"projects\n").unwrap();
    std::future::pending::<()>().await;
}

/// Starts the child and returns when it holds the lease.
fn child(schema: &str) -> Child {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "postgres::taken_over::projects_until_it_is_killed", "--nocapture"])
        .env(SCHEMA, schema)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("projects")), "the child has failed");
    child
}

/// (Seen to fail, after ten seconds, with leases of ten seconds, the default before.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r18_a_process_that_waits_takes_over_within_three_seconds_after_a_kill() {
    let schema = Schema::new();
    let store = schema.store().await;
    let name = schema.0.clone();
    let mut child = tokio::task::spawn_blocking(move || child(&name)).await.unwrap();
    let _standby = project(Ledger::<1>::default(), &store);
    // The other process folds these, as long as it lives.
    for _ in 0..20 {
        reaches::<Ledger>(&store, deposit(&store).await).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let (killed, token) = (Instant::now(), deposit(&store).await);
    reaches::<Ledger>(&store, token).await;
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(3), "it took {took:?}");
}

/// Counts the statements that change checkpoints.
const COUNT: &str = "CREATE TABLE writes (at timestamptz DEFAULT clock_timestamp());
    CREATE FUNCTION note_write() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
        'BEGIN INSERT INTO writes DEFAULT VALUES; RETURN NULL; END';
    CREATE TRIGGER note_write AFTER UPDATE ON checkpoints FOR EACH STATEMENT EXECUTE FUNCTION note_write()";

/// (Seen to fail, with five writes in 0.7 s, where each worker writes each renewal itself.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r18_a_process_without_news_makes_one_write_a_second_for_all_its_leases() {
    let schema = Schema::new();
    let store = schema.store().await;
    let _projectors = [project(Ledger::<1>::default(), &store), project(Histories, &store)];
    let token = deposit(&store).await;
    reaches::<Ledger>(&store, token).await;
    reaches::<Histories>(&store, token).await;
    let mut session = schema.session().await;
    session.run(COUNT).await;
    // The first ones may be those of leases that were taken one after the other.
    session.until("SELECT count(*) FROM writes", 7).await;
    let longest = "SELECT (1000 * extract(epoch FROM max(at) - min(at)))::bigint
        FROM (SELECT at FROM writes ORDER BY at DESC LIMIT 5) last";
    let milliseconds = session.number(longest).await;
    assert!(milliseconds >= 3_000, "five writes in {milliseconds} ms");
}

async fn acquire(store: &PostgresStore, ttl: Duration) -> Option<Lease> {
    let generation = store.ensure_generation("model", 1, GenerationState::Serving, "projection", &[]).await.unwrap();
    let shard = Shard::from("log");
    store.ensure_shards(&generation.reader, std::slice::from_ref(&shard)).await.unwrap();
    store.acquire(&generation.reader, &shard, Uuid::now_v7(), Takeover::WhenFree, ttl).await.unwrap()
}

/// (Seen to fail where each question locked the generation's row, which the server writes to its log and syncs.)
#[tokio::test]
async fn r18_a_worker_that_waits_for_a_lease_writes_nothing() {
    let schema = Schema::new();
    let store = schema.store().await;
    let held = acquire(&store, Duration::from_mins(1)).await.expect("free");
    let mut session = schema.session().await;
    session.run(&format!("BEGIN; SELECT ensure_shards({}, ARRAY['log'], ARRAY['log'])", held.reader.id)).await;
    let wrote = session.number("SELECT (pg_current_xact_id_if_assigned() IS NOT NULL)::int::bigint").await;
    session.run("ROLLBACK").await;
    assert_eq!(wrote, 0);
}

/// Asks for the lease again and again, for three times its length.
async fn no_other_store_gets_it(rival: &PostgresStore, lease: &Lease, ttl: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < ttl * 3 {
        let taken = rival.acquire(&lease.reader, &lease.shard, Uuid::now_v7(), Takeover::WhenFree, ttl).await;
        assert!(taken.unwrap().is_none(), "after {:?}", begun.elapsed());
        tokio::time::sleep(ttl / 20).await;
    }
}

/// The only connection for reads and read models waits for a lock, and the owner's next step waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r18_a_lease_is_kept_while_all_connections_are_busy() {
    let schema = Schema::new();
    let owner = schema.options().reader_connections(1).connect().await.unwrap();
    let (rival, ttl) = (schema.store().await, Duration::from_secs(1));
    let lease = acquire(&owner, ttl).await.unwrap();
    let (mut foreign, mut watcher) = (schema.session().await, schema.session().await);
    foreign.run("BEGIN; LOCK TABLE documents").await;
    let reading = tokio::spawn({
        let (owner, reader) = (owner.clone(), lease.reader.clone());
        async move { owner.load(&reader, &["key".to_owned()], usize::MAX).await }
    });
    let confirming = tokio::spawn({
        let lease = lease.clone();
        async move {
            watcher.until_blocked(&schema, 1).await;
            owner.confirm(&lease).await
        }
    });
    no_other_store_gets_it(&rival, &lease, ttl).await;
    foreign.run("COMMIT").await;
    reading.await.unwrap().unwrap();
    confirming.await.unwrap().unwrap();
}

/// A process that waits for a lease does not take it after a commit that takes longer than the lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r18_a_commit_that_is_longer_than_the_lease_keeps_it() {
    let schema = Schema::new();
    let (owner, rival, ttl) = (schema.store().await, schema.store().await, Duration::from_secs(1));
    let lease = acquire(&owner, ttl).await.unwrap();
    let (mut foreign, mut watcher) = (schema.session().await, schema.session().await);
    foreign.run("BEGIN; LOCK TABLE documents").await;
    let committing = tokio::spawn({
        let lease = lease.clone();
        let upserts = vec![("key".to_owned(), bytes::Bytes::from_static(b"{}"))];
        let checkpoint = Checkpoint { position: Position::new(1), ..Checkpoint::default() };
        let changes = Changes { upserts, checkpoint, ..Changes::default() };
        async move { owner.commit(&lease, changes).await }
    });
    watcher.until_blocked(&schema, 1).await;
    no_other_store_gets_it(&rival, &lease, ttl).await;
    foreign.run("COMMIT").await;
    committing.await.unwrap().unwrap();
}
