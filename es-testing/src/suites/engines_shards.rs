//! One reader in several shards of the log, which several workers share, on every store.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use es_core::{
    Backoff, EngineError, FailurePolicy, LogSource, Policy, PolicyError, PolicyRunner, Position, Projection, Projector,
    QueryError, Recorded,
    backend::{Changes, Checkpoint, Reader, Shard, Takeover},
    testing::account::{AccountEvent, Histories},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    engines_failures::{
        Amounts, Fault, Faults, act, deposit, documents, eventually, expected, letters, no_letters, reaches, stops,
    },
    engines_project::{self, PATIENCE, Running, Store, assert_equals_the_fold, load, read_model, source, spawn},
};

/// The shards of the readers in these tests.
const SHARDS: u32 = 4;

fn projector<P: Projection>(projection: P, store: &impl Store) -> Projector<P> {
    engines_project::projector(projection, store).shards(SHARDS)
}

async fn generation(store: &impl Store, name: &str) -> Reader {
    let generation = eventually("it begins", async || {
        let found = store.generations(name).await.expect("asked");
        found.serving.or(found.building).map(|progress| progress.generation.reader)
    });
    generation.await
}

/// How many shards each worker holds, the smallest number first.
async fn shares(store: &impl Store, reader: &Reader) -> Vec<usize> {
    let mut held = BTreeMap::<Uuid, usize>::new();
    for share in store.shares(reader).await.expect("asked") {
        *held.entry(share.owner).or_default() += 1;
    }
    let mut counts: Vec<_> = held.into_values().collect();
    counts.sort_unstable();
    counts
}

async fn until_shared(store: &impl Store, reader: &Reader, wanted: &[usize]) {
    let mut seen = Vec::new();
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        seen = shares(store, reader).await;
        if seen == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the shards are shared as {seen:?} and not as {wanted:?}");
}

/// Another worker takes `shard`, for as long as the lease is kept.
async fn taken(store: &impl Store, reader: &Reader, shard: &Shard) -> es_core::backend::Lease {
    let (owner, ttl) = (Uuid::now_v7(), Duration::from_mins(1));
    let lease = store.acquire(reader, shard, owner, Takeover::Always, ttl).await.expect("asked");
    lease.expect("there is such a shard")
}

/// R9, R18: each document is the fold of its events, each once and in log order, while workers join and are killed. Seen to fail
/// where a shard folds the keys of the others.
pub async fn r9_shards_are_folded_once_while_workers_come_and_go(store: &impl Store) {
    // They serve from the beginning, so that the projector folds, and not what builds a generation in memory.
    let first = projector(Amounts::default(), store);
    first.rebuild(CancellationToken::new()).await.expect("rebuilt").expect("not interrupted");
    let clients = load(store, 40);
    let shutdown = CancellationToken::new();
    let start =
        || [spawn(projector(Histories, store), &shutdown), spawn(projector(Amounts::default(), store), &shutdown)];
    let mut workers = Vec::from(start());
    for quarter in 1..=3 {
        reaches::<Amounts>(store, Position::new(quarter * 100)).await;
        // One more, and from the second time on one fewer.
        workers.extend(start());
        if quarter > 1 {
            workers.drain(..2).for_each(|worker| worker.abort());
        }
    }
    clients.join_all().await;
    assert_equals_the_fold(Histories, store).await;
    assert_equals_the_fold(Amounts::default(), store).await;
    shutdown.cancel();
    for worker in workers {
        worker.await.expect("no panic").expect("it stops in order");
    }
}

/// R18: workers share the shards evenly, whenever they come and go. Seen to fail where a worker that has given a shard back takes it
/// again at once.
pub async fn r18_workers_share_the_shards_evenly(store: &impl Store) {
    load(store, 2).join_all().await;
    let start = || {
        let shutdown = CancellationToken::new();
        (spawn(projector(Histories, store), &shutdown), shutdown)
    };
    let (first, first_ends) = start();
    let generation = generation(store, Histories::NAME).await;
    until_shared(store, &generation, &[4]).await;
    let (second, second_ends) = start();
    until_shared(store, &generation, &[2, 2]).await;
    let (third, _third_ends) = start();
    until_shared(store, &generation, &[1, 1, 2]).await;
    stops(first, &first_ends).await;
    until_shared(store, &generation, &[2, 2]).await;
    third.abort();
    until_shared(store, &generation, &[4]).await;
    load(store, 2).join_all().await;
    assert_equals_the_fold(Histories, store).await;
    stops(second, &second_ends).await;
}

/// R18: with the default lease.
pub async fn r18_the_shards_of_a_killed_worker_are_taken_over_in_3_s(store: &impl Store) {
    load(store, 2).join_all().await;
    let start = || {
        let (worker, shutdown) =
            (Projector::new(Histories, source(store), store.clone()).shards(SHARDS), CancellationToken::new());
        (spawn(worker, &shutdown), shutdown)
    };
    let (first, _first_ends) = start();
    let generation = generation(store, Histories::NAME).await;
    until_shared(store, &generation, &[4]).await;
    let (second, second_ends) = start();
    until_shared(store, &generation, &[2, 2]).await;
    let killed = Instant::now();
    first.abort();
    until_shared(store, &generation, &[4]).await;
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    stops(second, &second_ends).await;
}

/// R12: several workers build a generation, each some of its shards, and it serves when all shards are there.
pub async fn r12_a_generation_is_built_by_several_workers(store: &impl Store) {
    let clients = load(store, 20);
    let shutdown = CancellationToken::new();
    let serving = spawn(engines_project::projector(Amounts::default(), store), &shutdown);
    let generation = generation(store, Amounts::NAME).await;
    reaches::<Amounts>(store, Position::new(20)).await;
    let rebuild = || {
        let worker = projector(Amounts::default(), store);
        tokio::spawn(async move { worker.rebuild(CancellationToken::new()).await })
    };
    // Paused, so that neither has ended before the other one has begun: then each would have built a generation of its own.
    store.pause(Amounts::NAME, &act()).await.expect("paused");
    let [one, other] = [rebuild(), rebuild()];
    while store.generations(Amounts::NAME).await.expect("asked").building.is_none() {
        tokio::task::yield_now().await;
    }
    store.resume(Amounts::NAME, &act()).await.expect("resumed");
    let built =
        [one.await, other.await].map(|built| built.expect("no panic").expect("built").expect("not interrupted"));
    assert_eq!(built[0], built[1]);
    assert_ne!(built[0].reader, generation);
    clients.join_all().await;
    shutdown.cancel();
    // It was in one shard, and has stopped at its promotion or at the shutdown.
    let _ = serving.await.expect("no panic");
    let shutdown = CancellationToken::new();
    let next = spawn(projector(Amounts::default(), store), &shutdown);
    assert_equals_the_fold(Amounts::default(), store).await;
    stops(next, &shutdown).await;
}

/// R13: a read waits for the shard that is furthest behind.
pub async fn r13_a_read_waits_for_all_shards(store: &impl Store) {
    deposit(store, &[("a", 1)]).await;
    let shutdown = CancellationToken::new();
    let worker = spawn(projector(Histories, store), &shutdown);
    reaches::<Histories>(store, Position::new(1)).await;
    let generation = generation(store, Histories::NAME).await;
    shutdown.cancel();
    worker.await.expect("no panic").expect("it stops in order");
    let held = taken(store, &generation, &Shard::split("log", SHARDS)[2]).await;
    let last = deposit(store, &[("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 1)]).await;
    let shutdown = CancellationToken::new();
    let worker = spawn(projector(Histories, store), &shutdown);
    let furthest = async || store.generations(Histories::NAME).await.expect("asked").serving.map(|it| it.furthest);
    eventually("the other shards go on", async || (furthest().await == Some(last)).then_some(())).await;
    let model = read_model::<Histories>(store);
    let waited = model.wait_for(es_core::ReadToken(last), Duration::from_millis(50)).await;
    assert!(matches!(waited, Err(QueryError::Lagging { .. })), "{waited:?}");
    store.release(&held).await.expect("released");
    reaches::<Histories>(store, last).await;
    assert_equals_the_fold(Histories, store).await;
    stops(worker, &shutdown).await;
}

/// R9: another number of shards begins where the former ones have stopped, and not before these have ended. Seen to fail where a
/// shard folds the keys of the others.
pub async fn r9_another_number_of_shards_folds_nothing_twice(store: &impl Store) {
    for shards in [1, 4, 2, 3, 1] {
        load(store, 2).join_all().await;
        let (former, latter) = (CancellationToken::new(), CancellationToken::new());
        let worker = engines_project::projector(Amounts::default(), store).shards(shards);
        let worker = spawn(worker, &former);
        assert_equals_the_fold(Amounts::default(), store).await;
        let next = spawn(engines_project::projector(Amounts::default(), store).shards(shards + 1), &latter);
        stops(worker, &former).await;
        load(store, 1).join_all().await;
        assert_equals_the_fold(Amounts::default(), store).await;
        stops(next, &latter).await;
    }
}

/// R9: where the former shards have stopped at different positions there is no position to begin at. A rebuild begins with any
/// number.
pub async fn r9_another_number_of_shards_is_refused_where_the_former_ones_differ(store: &impl Store) {
    load(store, 2).join_all().await;
    let shutdown = CancellationToken::new();
    let worker = spawn(projector(Amounts::default(), store), &shutdown);
    assert_equals_the_fold(Amounts::default(), store).await;
    stops(worker, &shutdown).await;
    let generation = generation(store, Amounts::NAME).await;
    let last = deposit(store, &[("a", 1)]).await;
    let lease = taken(store, &generation, &Shard::split("log", SHARDS)[0]).await;
    let checkpoint = Checkpoint { position: last, ..Checkpoint::default() };
    store.commit(&lease, Changes { checkpoint, ..Changes::default() }).await.expect("committed");
    store.release(&lease).await.expect("released");
    let other = || engines_project::projector(Amounts::default(), store).shards(2);
    let refused = tokio::time::timeout(PATIENCE, other().run(CancellationToken::new())).await.expect("it ends");
    match refused {
        Err(error @ EngineError::OtherSource(_)) => assert!(!error.is_transient(), "{error}"),
        other => panic!("expected another source, got {other:?}"),
    }
    other().rebuild(CancellationToken::new()).await.expect("rebuilt").expect("not interrupted");
    let shutdown = CancellationToken::new();
    let worker = spawn(other(), &shutdown);
    assert_equals_the_fold(Amounts::default(), store).await;
    stops(worker, &shutdown).await;
}

/// R19: a key is parked in its shard, and handled again there, while the other keys of the same events go on in theirs.
pub async fn r19_keys_are_parked_in_their_shards(store: &impl Store) {
    let faults = Faults::of([(2, Fault::Refuse)]);
    let projection = Amounts { faults: faults.clone(), ..Amounts::default() };
    let start = |shutdown: &CancellationToken| -> Running {
        spawn(projector(projection.clone(), store).on_failure(FailurePolicy::park()), shutdown)
    };
    let (one_ends, other_ends) = (CancellationToken::new(), CancellationToken::new());
    let one = start(&one_ends);
    let generation = generation(store, Amounts::NAME).await;
    let other = start(&other_ends);
    until_shared(store, &generation, &[2, 2]).await;
    let last = deposit(store, &[("a", 1), ("b", 11), ("a", 2), ("c", 21), ("a", 3), ("b", 12)]).await;
    reaches::<Amounts>(store, last).await;
    let all = [1, 11, 2, 21, 3, 12];
    let held_up = expected(&[("a", &[1]), ("all", &all), ("b", &[11, 12]), ("c", &[21])]);
    assert_eq!(documents::<Amounts>(store).await, held_up);
    let parked = letters(store, Amounts::NAME).await;
    assert_eq!(parked.iter().map(|letter| letter.event.position.get()).collect::<Vec<_>>(), [3, 5]);
    assert!(parked.iter().all(|letter| letter.shard.slice().holds("a")), "{parked:?}");
    faults.mend();
    store.request_retry(Amounts::NAME, "a", &act()).await.expect("parked");
    no_letters(store, Amounts::NAME).await;
    assert_equals_the_fold(projection.clone(), store).await;
    stops(one, &one_ends).await;
    stops(other, &other_ends).await;
}

/// R19: while an event is tried again, the shards of other keys go on in the same worker. Seen to fail where the worker waits.
pub async fn r19_an_event_that_is_tried_again_holds_up_its_shard_alone(store: &impl Store) {
    let projection = Amounts { faults: Faults::of([(2, Fault::Refuse)]), ..Amounts::default() };
    let hour = Duration::from_hours(1);
    let shutdown = CancellationToken::new();
    let again = FailurePolicy::retry(Backoff::new(hour, hour), 1).then_park();
    let worker = spawn(projector(projection, store).on_failure(again), &shutdown);
    let first = deposit(store, &[("a", 1)]).await;
    reaches::<Amounts>(store, first).await;
    let held_up = Shard::split("log", SHARDS).into_iter().find(|shard| shard.slice().holds("a")).expect("one has it");
    let accounts = ["b", "c", "d", "e", "f", "g"];
    let deposits: Vec<_> = [("a", 2)].into_iter().chain(accounts.map(|account| (account, 11))).collect();
    deposit(store, &deposits).await;
    let others: Vec<_> = accounts.into_iter().filter(|account| !held_up.slice().holds(account)).collect();
    assert!(!others.is_empty());
    eventually("the other shards go on", async || {
        let documents = documents::<Amounts>(store).await;
        others.iter().all(|account| documents.contains_key(*account)).then_some(())
    })
    .await;
    assert_eq!(documents::<Amounts>(store).await["a"], expected(&[("a", &[1])])["a"], "it waits for the next attempt");
    stops(worker, &shutdown).await;
}

/// Notes the versions of each account as it reacts to them.
#[derive(Debug, Clone, Default)]
struct Noting(Arc<Mutex<BTreeMap<String, Vec<u64>>>>);

#[async_trait]
impl Policy for Noting {
    const NAME: &'static str = "noting";
    type Event = AccountEvent;

    async fn react(&self, event: &Recorded<AccountEvent>) -> Result<(), PolicyError> {
        let mut noted = self.0.lock().expect("no panic under it");
        noted.entry(event.stream.id().to_owned()).or_default().push(event.version.get());
        Ok(())
    }
}

/// R9: a policy reacts to the events of each stream in their order, each once, if no worker is killed.
pub async fn r9_a_policy_in_shards_reacts_to_each_stream_in_order(store: &impl Store) {
    let policy = Noting::default();
    let clients = load(store, 20);
    let shutdown = CancellationToken::new();
    let mut workers = Vec::new();
    for _ in 0..3 {
        let runner = PolicyRunner::new(policy.clone(), LogSource::new(store.clone()).batch(7), store.clone());
        let (runner, shutdown) = (runner.shards(SHARDS), shutdown.clone());
        workers.push(tokio::spawn(async move { runner.run(shutdown).await }));
    }
    clients.join_all().await;
    let head = store.head().await.expect("a head");
    eventually("it has reacted to all", async || {
        (store.reached(Noting::NAME).await.expect("asked") == head).then_some(())
    })
    .await;
    let noted = policy.0.lock().expect("no panic under it").clone();
    assert_eq!(noted.len(), 10);
    for (account, versions) in noted {
        assert!(versions.iter().copied().eq(1..=20), "{account}: {versions:?}");
    }
    let (reader, _) = store.ensure_reader(Noting::NAME, "it has begun").await.expect("asked");
    // One that a worker has just given to another one is held by neither.
    eventually("all shards are held", async || {
        let shares = store.shares(&reader).await.expect("asked").into_iter();
        let slices: BTreeSet<_> = shares.map(|share| share.shard).collect();
        slices.into_iter().eq(Shard::split("log", SHARDS)).then_some(())
    })
    .await;
    shutdown.cancel();
    for worker in workers {
        worker.await.expect("no panic").expect("it stops in order");
    }
}
