//! Leases after the end of their owner (R18).

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use es_core::{
    Generation, LogSource, Projector, ReadModel, ReadToken, Repository,
    backend::{Changeover, GenerationState, Generations, Lease, Leases, Shard, Takeover},
    testing::account::{Account, AccountCommand, Ledger},
};
use es_sqlite::SqliteStore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::fixture::new_path;

/// Tells the child which file to work on.
const FILE: &str = "ES_SQLITE_TAKEN_OVER_FILE";

/// How long a reader waits. Only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(30);

async fn deposit(store: &SqliteStore) -> ReadToken {
    Repository::<Account>::new(store.clone()).execute("a", AccountCommand::Deposit(1)).await.unwrap().token
}

fn project(store: &SqliteStore) -> JoinHandle<Result<(), es_core::EngineError>> {
    let store = Arc::new(store.clone());
    let projector = Projector::new(Ledger::<1>::default(), LogSource::new(store.clone()), store);
    tokio::spawn(async move { projector.run(CancellationToken::new()).await })
}

fn ledger(store: &SqliteStore) -> ReadModel<Ledger> {
    ReadModel::new(store.clone())
}

/// The child process of the tests below. Without the variable that names the file it does nothing. It keeps a read model
/// up to date, then appends once more and prints that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn projects_until_it_is_killed() {
    let Ok(file) = env::var(FILE) else { return };
    let store = SqliteStore::open(file).await.unwrap();
    let _projector = project(&store);
    ledger(&store).wait_for(deposit(&store).await, PATIENCE).await.unwrap();
    let acknowledged = deposit(&store).await;
    std::io::stdout().write_all(format!("acknowledged {}\n", acknowledged.0).as_bytes()).unwrap();
    std::future::pending::<()>().await;
}

/// Starts the child and returns when it holds the lease.
fn child(file: &Path) -> Child {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "sqlite::taken_over::projects_until_it_is_killed", "--nocapture"])
        .env(FILE, file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("acknowledged ")), "the child has failed");
    child
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// (Seen to fail where a lease ends by its time alone: the write was not visible for as long as the lease of the
/// dead process lasted.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r18_after_a_kill_the_next_process_shows_what_was_acknowledged_within_a_second() {
    let path = new_path();
    for round in 1..=3 {
        let file = path.clone();
        tokio::task::spawn_blocking(move || kill(child(&file))).await.unwrap();
        let restarted = Instant::now();
        let store = SqliteStore::open(&path).await.unwrap();
        let projector = project(&store);
        let acknowledged = ReadToken(es_core::Position::new(round * 2));
        ledger(&store).wait_for(acknowledged, PATIENCE).await.unwrap();
        let took = restarted.elapsed();
        assert!(took < Duration::from_secs(1), "it took {took:?}");
        projector.abort();
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r18_a_process_that_waits_takes_over_within_a_second_after_a_kill() {
    let path = new_path();
    let file = path.clone();
    let child = tokio::task::spawn_blocking(move || child(&file)).await.unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    let _standby = project(&store);
    let token = deposit(&store).await;
    // As long as the other process lives, it folds the event.
    ledger(&store).wait_for(token, PATIENCE).await.unwrap();
    tokio::task::spawn_blocking(move || kill(child)).await.unwrap();
    let (killed, token) = (Instant::now(), deposit(&store).await);
    ledger(&store).wait_for(token, PATIENCE).await.unwrap();
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(1), "it took {took:?}");
}

async fn acquire(store: &SqliteStore, generation: &Generation, ttl: Duration) -> Option<Lease> {
    let shard = Shard::from("log");
    let ready = store.ensure_shards(&generation.reader, std::slice::from_ref(&shard)).await.unwrap();
    assert_eq!(ready, Changeover::Ready);
    store.acquire(&generation.reader, &shard, Uuid::now_v7(), Takeover::WhenFree, ttl).await.unwrap()
}

#[tokio::test]
async fn r18_the_leases_of_a_store_are_free_as_soon_as_it_is_dropped() {
    let path = new_path();
    let [gone, next] = [SqliteStore::open(&path).await.unwrap(), SqliteStore::open(&path).await.unwrap()];
    let generation = next.ensure_generation("model", 1, GenerationState::Serving, "projection", &[]).await.unwrap();
    let hour = Duration::from_hours(1);
    acquire(&gone, &generation, hour).await.unwrap();
    assert!(acquire(&next, &generation, hour).await.is_none());
    let copy = [Shard::from("copy")];
    assert_eq!(next.ensure_shards(&generation.reader, &copy).await.unwrap(), Changeover::Busy);
    drop(gone);
    assert_eq!(next.ensure_shards(&generation.reader, &copy).await.unwrap(), Changeover::Ready);
    assert!(acquire(&next, &generation, hour).await.is_some());
}

/// A store that is open and does not renew its leases, as in a process that hangs.
#[tokio::test]
async fn r18_a_lease_without_a_heartbeat_for_its_length_is_free() {
    let path = new_path();
    let [hung, next] = [SqliteStore::open(&path).await.unwrap(), SqliteStore::open(&path).await.unwrap()];
    let generation = next.ensure_generation("model", 1, GenerationState::Serving, "projection", &[]).await.unwrap();
    let (ttl, asked) = (Duration::from_millis(200), Instant::now());
    acquire(&hung, &generation, ttl).await.unwrap();
    while acquire(&next, &generation, ttl).await.is_none() {
        tokio::task::yield_now().await;
    }
    assert!(asked.elapsed() >= ttl);
}

/// Seen to fail where the heartbeat was a task of the application: this runtime has one thread, which is blocked.
#[tokio::test]
async fn r18_the_heartbeat_keeps_a_lease_although_its_owner_blocks_the_runtime() {
    let path = new_path();
    let [owner, rival] = [SqliteStore::open(&path).await.unwrap(), SqliteStore::open(&path).await.unwrap()];
    let generation = rival.ensure_generation("model", 1, GenerationState::Serving, "projection", &[]).await.unwrap();
    let ttl = Duration::from_secs(1);
    let lease = acquire(&owner, &generation, ttl).await.unwrap();
    assert!(acquire(&rival, &generation, ttl).await.is_none());
    std::thread::sleep(ttl * 2);
    assert!(acquire(&rival, &generation, ttl).await.is_none(), "the same row for longer than the lease lasts");
    owner.confirm(&lease).await.unwrap();
}
