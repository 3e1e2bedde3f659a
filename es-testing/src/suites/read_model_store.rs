//! Read model stores: commits by compare-and-set, fencing, promotion.

use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use es_core::{
    Changeover, Changes, Checkpoint, CommitError, Generation, GenerationSet, GenerationState, KeyRange, Lease,
    Position, Progress, PromoteError, Promotion, ReadModelStore, Served, Shard, Takeover, Witness,
};
use tokio::task::JoinSet;
use uuid::Uuid;

/// Tests a read model store: `read_model_store_suite!(async { … })` with an expression that makes
/// an empty store which implements [`ReadModelStore`] and `Clone`.
#[macro_export]
macro_rules! read_model_store_suite {
    ($make:expr) => {
        $crate::__suite! { read_model_store, $make,
            r9_documents_and_checkpoint_commit_together
            r9_a_commit_from_a_stale_checkpoint_writes_nothing
            r9_a_fenced_worker_writes_nothing
            r9_of_concurrent_commits_exactly_one_wins
            r9_a_checkpoint_comes_back_as_it_was_committed
            r9_another_source_goes_on_where_the_former_stood
            r9_another_source_does_not_start_from_uneven_shards
            r9_another_source_waits_for_live_leases
            leases_exclude_others_until_released_or_expired
            a_lease_may_be_taken_for_ever
            a_store_has_an_id_of_its_own
            generations_are_created_once
            the_first_definition_of_a_generation_stays
            a_reader_without_documents_is_made_once_and_takes_no_name_of_a_projection
            r12_a_rebuild_is_invisible_until_promoted
            r12_promotion_refuses_to_go_back_in_time
            r12_promotion_compares_shard_by_shard
            r12_workers_of_a_replaced_generation_are_fenced
            r12_a_discarded_rebuild_leaves_no_trace
            r12_what_is_read_comes_with_its_generation
            r12_the_promotion_of_an_older_version_withdraws_the_newer_ones
            r13_reached_is_the_least_of_all_shards
            r13_a_promotion_never_lets_reached_fall
            scans_follow_byte_order_within_their_range
            r17_a_load_ends_with_the_document_that_reaches_its_budget
        }
    };
}

const MODEL: &str = "suite";
const TTL: Duration = Duration::from_mins(1);

/// The store's id distinguishes the readers of one service from those of another with the same names.
pub async fn a_store_has_an_id_of_its_own<S: ReadModelStore + Clone>(store: &S) {
    let id = store.id().await.expect("an id");
    assert!(!id.is_nil());
    assert_eq!(store.clone().id().await.expect("an id"), id);
}

async fn serving(store: &impl ReadModelStore) -> Generation {
    store.ensure_generation(MODEL, 1, GenerationState::Serving).await.expect("a generation")
}

async fn building(store: &impl ReadModelStore) -> Generation {
    store.ensure_generation(MODEL, 2, GenerationState::Building).await.expect("a generation")
}

fn shard(name: &str) -> Shard {
    Shard::from(name)
}

async fn lease(store: &impl ReadModelStore, generation: &Generation, name: &str) -> Lease {
    let ready = store.ensure_shards(generation, &[shard(name)]).await.expect("asked");
    assert_eq!(ready, Changeover::Ready);
    let owner = Uuid::now_v7();
    let lease = store.acquire(generation, &shard(name), owner, Takeover::Always, TTL).await.expect("a lease");
    lease.expect("it is taken from whoever has it")
}

fn at(position: u64) -> Checkpoint {
    // Whole microseconds, with digits in all six places.
    let recorded_at =
        DateTime::from_timestamp_micros(1_767_225_600_123_456 + position.cast_signed()).expect("a time in 2026");
    let witness = Some(Witness { event_id: Uuid::now_v7(), recorded_at });
    Checkpoint { position: Position::new(position), witness, cursor: None }
}

fn changes(position: u64, upserts: &[(&str, &str)], deletes: &[&str]) -> Changes {
    Changes {
        upserts: upserts.iter().map(|(key, body)| ((*key).to_owned(), Bytes::from((*body).to_owned()))).collect(),
        deletes: deletes.iter().map(|key| (*key).to_owned()).collect(),
        checkpoint: at(position),
    }
}

/// Commits and moves the lease's own checkpoint on, as a projector does.
async fn commit(store: &impl ReadModelStore, lease: &mut Lease, changes: Changes) -> Result<(), CommitError> {
    let checkpoint = changes.checkpoint.clone();
    store.commit(lease, changes, TTL).await?;
    lease.checkpoint = checkpoint;
    Ok(())
}

#[track_caller]
fn fenced(outcome: Result<(), CommitError>) {
    match outcome {
        Err(CommitError::Fenced(_)) => {}
        other => panic!("expected to be fenced, got {other:?}"),
    }
}

async fn get(store: &impl ReadModelStore, key: &str) -> Option<String> {
    let served = store.get(MODEL, key).await.expect("a read").expect("one serves");
    served.found.map(|body| String::from_utf8(body.to_vec()).expect("text"))
}

async fn reached(store: &impl ReadModelStore, generation: &Generation) -> u64 {
    store.generations(MODEL).await.expect("a read").of(generation).map_or(0, |progress| progress.reached.get())
}

/// R9
pub async fn r9_documents_and_checkpoint_commit_together(store: &impl ReadModelStore) {
    let generation = serving(store).await;
    let mut lease = lease(store, &generation, "log").await;
    commit(store, &mut lease, changes(3, &[("a", "1"), ("b", "2"), ("c", "3")], &[])).await.expect("committed");
    commit(store, &mut lease, changes(5, &[("a", "4")], &["b", "never there"])).await.expect("committed");
    assert_eq!((get(store, "a").await, get(store, "b").await), (Some("4".into()), None));
    let keys = ["c".to_owned(), "b".to_owned(), "a".to_owned()];
    let loaded = store.load(&generation, &keys, usize::MAX).await.expect("loaded");
    assert_eq!(loaded, [Some(Bytes::from("3")), None, Some(Bytes::from("4"))], "in the order of the keys");
    assert_eq!(reached(store, &generation).await, 5);
}

/// R9
pub async fn r9_a_commit_from_a_stale_checkpoint_writes_nothing(store: &impl ReadModelStore) {
    let generation = serving(store).await;
    let mut lease = lease(store, &generation, "log").await;
    let before = lease.clone();
    commit(store, &mut lease, changes(3, &[("a", "1")], &[])).await.expect("committed");
    fenced(store.commit(&before, changes(3, &[("a", "again")], &[]), TTL).await);
    assert_eq!((get(store, "a").await, reached(store, &generation).await), (Some("1".into()), 3));
}

/// R9
pub async fn r9_a_fenced_worker_writes_nothing(store: &impl ReadModelStore) {
    let generation = serving(store).await;
    let zombie = lease(store, &generation, "log").await;
    let mut heir = lease(store, &generation, "log").await;
    assert!(heir.token > zombie.token);
    fenced(store.commit(&zombie, changes(2, &[("a", "zombie")], &[]), TTL).await);
    fenced(store.renew(&zombie, TTL).await);
    // Its release does not affect the next owner either.
    store.release(&zombie).await.expect("no-op");
    commit(store, &mut heir, changes(2, &[("a", "heir")], &[])).await.expect("committed");
    assert_eq!(get(store, "a").await, Some("heir".into()));
}

/// R9
pub async fn r9_of_concurrent_commits_exactly_one_wins<S: ReadModelStore + Clone>(store: &S) {
    let generation = serving(store).await;
    let lease = lease(store, &generation, "log").await;
    let mut racers = JoinSet::new();
    for racer in 0..12 {
        let (store, lease) = (store.clone(), lease.clone());
        racers.spawn(async move { store.commit(&lease, changes(4, &[(&format!("r{racer}"), "1")], &[]), TTL).await });
    }
    let outcomes = racers.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let served = store.scan(MODEL, KeyRange::default(), 100).await.expect("a scan").expect("one serves");
    assert_eq!(served.found.len(), 1);
}

/// R9
pub async fn r9_a_checkpoint_comes_back_as_it_was_committed(store: &impl ReadModelStore) {
    let generation = serving(store).await;
    let mut first = lease(store, &generation, "log").await;
    assert_eq!(first.checkpoint, Checkpoint::default());
    let checkpoint = Checkpoint { cursor: Some("{\"order-events/0\":7}".into()), ..at(12) };
    let moved = Changes { checkpoint: checkpoint.clone(), ..Changes::default() };
    commit(store, &mut first, moved).await.expect("committed");
    assert_eq!(lease(store, &generation, "log").await.checkpoint, checkpoint);
}

async fn give_back(store: &impl ReadModelStore, lease: &Lease) {
    store.release(lease).await.expect("released");
}

/// R9
pub async fn r9_another_source_goes_on_where_the_former_stood(store: &impl ReadModelStore) {
    let generation = serving(store).await;
    let mut log = lease(store, &generation, "log").await;
    commit(store, &mut log, changes(7, &[("a", "1")], &[])).await.expect("committed");
    give_back(store, &log).await;
    let parts = [shard("topic/0"), shard("topic/1")];
    assert_eq!(store.ensure_shards(&generation, &parts).await.expect("asked"), Changeover::Ready);
    assert_eq!(reached(store, &generation).await, 7);
    let mut part = lease(store, &generation, "topic/1").await;
    assert_eq!(part.checkpoint, Checkpoint { position: Position::new(7), ..Checkpoint::default() });
    // No worker continues with the former source.
    fenced(store.commit(&log, changes(8, &[], &[]), TTL).await);
    let gone = store.acquire(&generation, &shard("log"), Uuid::now_v7(), Takeover::Always, TTL).await;
    assert_eq!(gone.expect("asked"), None);
    // A partition that is added later starts from the beginning, and the others stay where they are.
    commit(store, &mut part, changes(9, &[], &[])).await.expect("committed");
    assert_eq!(lease(store, &generation, "topic/2").await.checkpoint, Checkpoint::default());
    assert_eq!(lease(store, &generation, "topic/1").await.checkpoint.position, Position::new(9));
}

/// R9
pub async fn r9_another_source_does_not_start_from_uneven_shards(store: &impl ReadModelStore) {
    let generation = serving(store).await;
    for (name, position) in [("topic/0", 7), ("topic/1", 5)] {
        let mut part = lease(store, &generation, name).await;
        commit(store, &mut part, changes(position, &[], &[])).await.expect("committed");
        give_back(store, &part).await;
    }
    let log = [shard("log")];
    assert_eq!(store.ensure_shards(&generation, &log).await.expect("asked"), Changeover::Uneven);
    let mut slow = lease(store, &generation, "topic/1").await;
    commit(store, &mut slow, changes(7, &[], &[])).await.expect("it is as it was, and catches up");
    give_back(store, &slow).await;
    assert_eq!(store.ensure_shards(&generation, &log).await.expect("asked"), Changeover::Ready);
    assert_eq!(reached(store, &generation).await, 7);
}

/// R9
pub async fn r9_another_source_waits_for_live_leases(store: &impl ReadModelStore) {
    let generation = serving(store).await;
    let mut log = lease(store, &generation, "log").await;
    let merged = [shard("merged")];
    assert_eq!(store.ensure_shards(&generation, &merged).await.expect("asked"), Changeover::Busy);
    commit(store, &mut log, changes(3, &[], &[])).await.expect("it goes on undisturbed");
    give_back(store, &log).await;
    assert_eq!(store.ensure_shards(&generation, &merged).await.expect("asked"), Changeover::Ready);
    // A former lease does not become valid again with the former source.
    assert_eq!(store.ensure_shards(&generation, &[shard("log")]).await.expect("asked"), Changeover::Ready);
    fenced(store.commit(&log, changes(4, &[], &[]), TTL).await);
    assert!(lease(store, &generation, "log").await.token > log.token);
}

/// One owner at a time.
pub async fn leases_exclude_others_until_released_or_expired(store: &impl ReadModelStore) {
    let generation = serving(store).await;
    let shard = shard("log");
    store.ensure_shards(&generation, std::slice::from_ref(&shard)).await.expect("ensured");
    let (one, two) = (Uuid::now_v7(), Uuid::now_v7());
    let first = store.acquire(&generation, &shard, one, Takeover::WhenFree, TTL).await.expect("asked").expect("free");
    assert_eq!(store.acquire(&generation, &shard, two, Takeover::WhenFree, TTL).await.expect("asked"), None);
    let again =
        store.acquire(&generation, &shard, one, Takeover::WhenFree, TTL).await.expect("asked").expect("its own");
    assert!(again.token > first.token);
    store.renew(&again, TTL).await.expect("renewed");
    store.release(&again).await.expect("released");
    let second = store.acquire(&generation, &shard, two, Takeover::WhenFree, Duration::ZERO).await.expect("asked");
    let second = second.expect("it was released");
    fenced(store.commit(&again, changes(1, &[], &[]), TTL).await);
    // A lease of length zero has expired.
    let third = store.acquire(&generation, &shard, one, Takeover::WhenFree, TTL).await.expect("asked");
    assert!(third.expect("it has expired").token > second.token);
}

/// The greatest duration that there is.
pub async fn a_lease_may_be_taken_for_ever(store: &impl ReadModelStore) {
    let (generation, shard) = (serving(store).await, shard("log"));
    store.ensure_shards(&generation, std::slice::from_ref(&shard)).await.expect("ensured");
    let acquire = |owner| store.acquire(&generation, &shard, owner, Takeover::WhenFree, Duration::MAX);
    let mut lease = acquire(Uuid::now_v7()).await.expect("asked").expect("free");
    store.renew(&lease, Duration::MAX).await.expect("renewed");
    store.commit(&lease, changes(1, &[("a", "1")], &[]), Duration::MAX).await.expect("committed");
    lease.checkpoint = at(1);
    assert_eq!(acquire(Uuid::now_v7()).await.expect("asked"), None);
    store.release(&lease).await.expect("released");
    assert!(acquire(Uuid::now_v7()).await.expect("asked").is_some());
}

/// Also if many workers ask at once.
pub async fn generations_are_created_once<S: ReadModelStore + Clone>(store: &S) {
    assert_eq!(store.generations(MODEL).await.expect("asked").serving.map(|serving| serving.generation), None);
    let mut racers = JoinSet::new();
    for _ in 0..12 {
        let store = store.clone();
        racers.spawn(async move { (serving(&store).await, building(&store).await) });
    }
    let made = racers.join_all().await;
    assert!(made.iter().all(|generations| *generations == made[0]));
    let (serving, building) = &made[0];
    assert_ne!(serving.id, building.id);
    assert_eq!((serving.version, building.version), (1, 2));
    assert_eq!(
        store.generations(MODEL).await.expect("asked").serving.map(|serving| serving.generation).as_ref(),
        Some(serving)
    );
    let asked_for_three = store.ensure_generation(MODEL, 3, GenerationState::Serving).await.expect("asked");
    assert_eq!(&asked_for_three, serving, "what exists keeps its version");
}

/// R12
pub async fn r12_a_rebuild_is_invisible_until_promoted(store: &impl ReadModelStore) {
    let old = serving(store).await;
    let mut old_lease = lease(store, &old, "log").await;
    commit(store, &mut old_lease, changes(5, &[("a", "old"), ("gone", "old")], &[])).await.expect("committed");
    let new = building(store).await;
    let mut new_lease = lease(store, &new, "log").await;
    commit(store, &mut new_lease, changes(5, &[("a", "new")], &[])).await.expect("committed");
    assert_eq!(get(store, "a").await, Some("old".into()));
    let states = async || (store.state(&old).await.expect("asked"), store.state(&new).await.expect("asked"));
    assert_eq!(states().await, (Some(GenerationState::Serving), Some(GenerationState::Building)));
    store.promote(&new, Promotion::Automatic).await.expect("promoted");
    assert_eq!(states().await, (None, Some(GenerationState::Serving)));
    assert_eq!((get(store, "a").await, get(store, "gone").await), (Some("new".into()), None));
    assert_eq!(
        store.generations(MODEL).await.expect("asked").serving.map(|serving| serving.generation),
        Some(new.clone())
    );
    // Its own worker continues and is not affected.
    commit(store, &mut new_lease, changes(6, &[("a", "newer")], &[])).await.expect("committed");
    assert_eq!(get(store, "a").await, Some("newer".into()));
    assert!(matches!(store.promote(&new, Promotion::Automatic).await, Err(PromoteError::NotBuilding)));
}

/// R12
pub async fn r12_promotion_refuses_to_go_back_in_time(store: &impl ReadModelStore) {
    let old = serving(store).await;
    let mut old_lease = lease(store, &old, "log").await;
    commit(store, &mut old_lease, changes(9, &[("a", "old")], &[])).await.expect("committed");
    let new = building(store).await;
    let mut new_lease = lease(store, &new, "log").await;
    commit(store, &mut new_lease, changes(8, &[("a", "new")], &[])).await.expect("committed");
    let refusal = store.promote(&new, Promotion::Automatic).await.expect_err("it is behind");
    assert!(
        matches!(refusal, PromoteError::Behind { building, serving } if (building.get(), serving.get()) == (8, 9)),
        "{refusal:?}"
    );
    assert_eq!(get(store, "a").await, Some("old".into()));
    commit(store, &mut old_lease, changes(10, &[], &[])).await.expect("the old one goes on");
}

/// R12
pub async fn r12_promotion_compares_shard_by_shard(store: &impl ReadModelStore) {
    let (old, new) = (serving(store).await, building(store).await);
    let behind = async |new: &Generation, positions: (u64, u64)| match store.promote(new, Promotion::Automatic).await {
        Err(PromoteError::Behind { building, serving }) => assert_eq!((building.get(), serving.get()), positions),
        other => panic!("readers of a shard would go back, got {other:?}"),
    };
    for (shard, position) in [("topic/0", 9), ("topic/1", 4)] {
        let mut old_lease = lease(store, &old, shard).await;
        commit(store, &mut old_lease, changes(position, &[], &[])).await.expect("committed");
    }
    // From another source: its slowest shard counts.
    let mut log = lease(store, &new, "log").await;
    commit(store, &mut log, changes(8, &[], &[])).await.expect("committed");
    behind(&new, (8, 9)).await;
    store.discard(&new).await.expect("discarded");
    // From the same source: the lowest position of both is 4, but the first shard is behind.
    let new = building(store).await;
    for (shard, position) in [("topic/0", 7), ("topic/1", 4)] {
        let mut new_lease = lease(store, &new, shard).await;
        commit(store, &mut new_lease, changes(position, &[], &[])).await.expect("committed");
    }
    behind(&new, (7, 9)).await;
    let mut new_lease = lease(store, &new, "topic/0").await;
    commit(store, &mut new_lease, changes(9, &[], &[])).await.expect("committed");
    store.promote(&new, Promotion::Automatic).await.expect("promoted");
}

/// R12
pub async fn r12_workers_of_a_replaced_generation_are_fenced(store: &impl ReadModelStore) {
    let old = serving(store).await;
    let mut old_lease = lease(store, &old, "log").await;
    commit(store, &mut old_lease, changes(1, &[("a", "old")], &[])).await.expect("committed");
    let new = building(store).await;
    let mut new_lease = lease(store, &new, "log").await;
    commit(store, &mut new_lease, changes(1, &[("a", "new")], &[])).await.expect("committed");
    store.promote(&new, Promotion::Automatic).await.expect("promoted");
    fenced(store.commit(&old_lease, changes(2, &[("a", "zombie")], &[]), TTL).await);
    fenced(store.renew(&old_lease, TTL).await);
    let late = store.acquire(&old, &shard("log"), Uuid::now_v7(), Takeover::WhenFree, TTL).await.expect("asked");
    assert_eq!(late, None, "nobody can take up the old generation again");
    assert_eq!(get(store, "a").await, Some("new".into()));
}

/// R12
pub async fn r12_a_discarded_rebuild_leaves_no_trace(store: &impl ReadModelStore) {
    serving(store).await;
    let first = building(store).await;
    let mut first_lease = lease(store, &first, "log").await;
    commit(store, &mut first_lease, changes(3, &[("a", "1")], &[])).await.expect("committed");
    store.discard(&first).await.expect("discarded");
    store.discard(&first).await.expect("no-op");
    assert_eq!(store.state(&first).await.expect("asked"), None);
    fenced(store.commit(&first_lease, changes(4, &[], &[]), TTL).await);
    let second = building(store).await;
    assert_ne!(second.id, first.id);
    assert_eq!(store.load(&second, &["a".to_owned()], usize::MAX).await.expect("loaded"), [None]);
    assert_eq!(lease(store, &second, "log").await.checkpoint, Checkpoint::default());
}

/// R12
pub async fn r12_what_is_read_comes_with_its_generation(store: &impl ReadModelStore) {
    assert_eq!(store.get(MODEL, "a").await.expect("a read"), None);
    assert_eq!(store.generations(MODEL).await.expect("asked"), GenerationSet::default());
    let new = building(store).await;
    let mut new_lease = lease(store, &new, "log").await;
    commit(store, &mut new_lease, changes(3, &[("a", "new")], &[])).await.expect("committed");
    assert_eq!(store.get(MODEL, "a").await.expect("a read"), None, "what is built is not there yet");
    assert_eq!(store.scan(MODEL, KeyRange::default(), 10).await.expect("a scan"), None);
    let (reached, furthest) = (Position::new(3), Position::new(3));
    let progress = Progress { generation: new.clone(), definition: None, reached, furthest };
    let found = store.generations(MODEL).await.expect("asked");
    assert_eq!(found, GenerationSet { building: Some(progress.clone()), ..GenerationSet::default() });
    store.promote(&new, Promotion::Automatic).await.expect("promoted");
    let found = store.generations(MODEL).await.expect("asked");
    assert_eq!(found, GenerationSet { serving: Some(progress), ..GenerationSet::default() });
    let served = store.get(MODEL, "none").await.expect("a read");
    assert_eq!(served, Some(Served { generation: new.clone(), found: None }));
    let served = store.scan(MODEL, KeyRange::prefix("none"), 10).await.expect("a scan");
    assert_eq!(served, Some(Served { generation: new, found: Vec::new() }));
}

/// R12
pub async fn r12_the_promotion_of_an_older_version_withdraws_the_newer_ones(store: &impl ReadModelStore) {
    let build =
        async |version| store.ensure_generation(MODEL, version, GenerationState::Building).await.expect("a generation");
    let withdrawn = async || store.generations(MODEL).await.expect("asked").withdrawn;
    let refused = async |generation: &Generation, serves: u32| {
        match store.promote(generation, Promotion::Automatic).await {
            Err(PromoteError::Withdrawn { serving }) => assert_eq!(serving, serves),
            other => panic!("the generation that was not asked for, got {other:?}"),
        }
        assert_eq!(
            store
                .generations(MODEL)
                .await
                .expect("asked")
                .serving
                .map(|serving| serving.generation)
                .expect("one serves")
                .version,
            serves
        );
    };
    store.promote(&build(3).await, Promotion::Automatic).await.expect("promoted");
    assert_eq!(withdrawn().await, 0);
    let older = build(1).await;
    refused(&older, 3).await;
    store.promote(&older, Promotion::OnPurpose).await.expect("promoted");
    assert_eq!(withdrawn().await, 3);
    for version in [2, 3] {
        let newer = build(version).await;
        refused(&newer, 1).await;
        store.discard(&newer).await.expect("discarded");
    }
    store.promote(&build(1).await, Promotion::OnPurpose).await.expect("promoted");
    assert_eq!(withdrawn().await, 3, "they stay withdrawn");
    store.promote(&build(2).await, Promotion::OnPurpose).await.expect("promoted");
    assert_eq!(withdrawn().await, 3);
    store.promote(&build(4).await, Promotion::Automatic).await.expect("a version that was never withdrawn");
    assert_eq!(withdrawn().await, 0);
}

/// R13: also if the new generation has a shard that the old one does not have.
pub async fn r13_a_promotion_never_lets_reached_fall(store: &impl ReadModelStore) {
    let (old, new) = (serving(store).await, building(store).await);
    let mut old_lease = lease(store, &old, "topic/0").await;
    commit(store, &mut old_lease, changes(9, &[], &[])).await.expect("committed");
    let mut known = lease(store, &new, "topic/0").await;
    commit(store, &mut known, changes(9, &[], &[])).await.expect("committed");
    let mut added = lease(store, &new, "topic/1").await;
    match store.promote(&new, Promotion::OnPurpose).await {
        Err(PromoteError::Behind { building, serving }) => assert_eq!((building.get(), serving.get()), (0, 9)),
        other => panic!("what readers have reached would fall, got {other:?}"),
    }
    commit(store, &mut added, changes(9, &[], &[])).await.expect("committed");
    store.promote(&new, Promotion::Automatic).await.expect("promoted");
}

/// Of two programs at once too.
pub async fn the_first_definition_of_a_generation_stays<S: ReadModelStore + Clone>(store: &S) {
    let generation = serving(store).await;
    let definition = async || store.generations(MODEL).await.expect("asked").serving.expect("one serves").definition;
    assert_eq!(definition().await, None);
    let mut racers = JoinSet::new();
    for racer in 0..8 {
        let (store, generation) = (store.clone(), generation.clone());
        racers.spawn(async move { store.define(&generation, &format!("projection {racer}")).await });
    }
    racers.join_all().await.into_iter().for_each(|defined| defined.expect("defined"));
    let first = definition().await;
    assert!(first.is_some());
    store.define(&generation, "another").await.expect("no-op");
    assert_eq!(definition().await, first);
}

/// Also if many workers ask at once, each with a definition of its own.
pub async fn a_reader_without_documents_is_made_once_and_takes_no_name_of_a_projection<S>(store: &S)
where
    S: ReadModelStore + Clone,
{
    let mut racers = JoinSet::new();
    for racer in 0..8 {
        let store = store.clone();
        racers.spawn(async move { store.ensure_reader("reader", &format!("policy {racer}")).await.expect("made") });
    }
    let made = racers.join_all().await;
    assert!(made[0].definition.is_some() && made.iter().all(|reader| *reader == made[0]), "{made:?}");
    // Its checkpoint is kept and shows its position.
    let mut lease = lease(store, &made[0].generation, "log").await;
    commit(store, &mut lease, changes(5, &[], &[])).await.expect("committed");
    assert_eq!(store.reached("reader").await.expect("asked"), Position::new(5));
    let again = store.ensure_reader("reader", "policy").await.expect("asked");
    assert_eq!((again.reached, &again.definition), (Position::new(5), &made[0].definition));

    let building = building(store).await;
    store.define(&building, "projection").await.expect("defined");
    let found = store.ensure_reader(MODEL, "policy").await.expect("asked");
    assert_eq!((found.generation, found.definition.as_deref()), (building, Some("projection")));
    assert_eq!(store.generations(MODEL).await.expect("asked").serving, None, "nothing is made beside it");
}

/// R13
pub async fn r13_reached_is_the_least_of_all_shards(store: &impl ReadModelStore) {
    let generation = serving(store).await;
    assert_eq!(reached(store, &generation).await, 0);
    store.ensure_shards(&generation, &[shard("topic/0"), shard("topic/1")]).await.expect("ensured");
    let mut zero = lease(store, &generation, "topic/0").await;
    commit(store, &mut zero, changes(7, &[], &[])).await.expect("committed");
    assert_eq!(reached(store, &generation).await, 0, "the other has not begun");
    let mut one = lease(store, &generation, "topic/1").await;
    commit(store, &mut one, changes(4, &[], &[])).await.expect("committed");
    store.ensure_shards(&generation, &[shard("topic/0"), shard("topic/1")]).await.expect("no-op");
    assert_eq!(reached(store, &generation).await, 4);
}

/// Byte order, also if the database's locale has another one.
pub async fn scans_follow_byte_order_within_their_range(store: &impl ReadModelStore) {
    let generation = serving(store).await;
    let mut lease = lease(store, &generation, "log").await;
    let keys = ["B/1", "a/1", "a/10", "a/2", "a/é", "a0", "b/1", "a%_", "a/"];
    let upserts: Vec<(&str, &str)> = keys.iter().map(|key| (*key, "{}")).collect();
    commit(store, &mut lease, changes(1, &upserts, &[])).await.expect("committed");
    let scan = async |range: KeyRange, limit| {
        let served = store.scan(MODEL, range, limit).await.expect("a scan").expect("one serves");
        served.found.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(scan(KeyRange::default(), 100).await, ["B/1", "a%_", "a/", "a/1", "a/10", "a/2", "a/é", "a0", "b/1"]);
    assert_eq!(scan(KeyRange::prefix("a/"), 100).await, ["a/", "a/1", "a/10", "a/2", "a/é"]);
    assert_eq!(scan(KeyRange::prefix("a/").after("a/1"), 2).await, ["a/10", "a/2"]);
    assert_eq!(scan(KeyRange::prefix("a/").before("a/2"), 100).await, ["a/", "a/1", "a/10"]);
    assert_eq!(scan(KeyRange::prefix("a%"), 100).await, ["a%_"]);
    assert_eq!(scan(KeyRange::prefix("none"), 100).await, [""; 0]);
    assert_eq!(scan(KeyRange::default(), 0).await, [""; 0]);
    assert_eq!(store.scan("another model", KeyRange::default(), 10).await.expect("a scan"), None);
}

/// R17
pub async fn r17_a_load_ends_with_the_document_that_reaches_its_budget(store: &impl ReadModelStore) {
    let generation = serving(store).await;
    let mut lease = lease(store, &generation, "log").await;
    let ten = "1234567890";
    commit(store, &mut lease, changes(1, &[("a", ten), ("b", ten), ("c", ten)], &[])).await.expect("committed");
    let keys = ["b", "not there", "a", "c"].map(str::to_owned);
    for (budget, loaded) in [(0, 0), (1, 1), (10, 1), (11, 3), (20, 3), (21, 4), (usize::MAX, 4)] {
        let documents = store.load(&generation, &keys, budget).await.expect("loaded");
        let all = [Some(ten), None, Some(ten), Some(ten)].map(|document| document.map(Bytes::from));
        assert_eq!(documents, all[..loaded], "{budget}");
    }
}
