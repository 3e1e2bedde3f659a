//! Read model stores: generations beside each other, and the promotion of one.

use es_core::{
    Generation, KeyRange, Position,
    backend::{
        Checkpoint, GenerationSet, GenerationState, Progress, PromoteError, Promotion, ReadModelStore, Served, Takeover,
    },
};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::read_model_store::{DEFINITION, MODEL, TTL, building, changes, commit, fenced, get, lease, serving, shard};

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
    assert_ne!(serving.reader.id, building.reader.id);
    assert_eq!((serving.version, building.version), (1, 2));
    assert_eq!(
        store.generations(MODEL).await.expect("asked").serving.map(|serving| serving.generation).as_ref(),
        Some(serving)
    );
    let asked_for_three =
        store.ensure_generation(MODEL, 3, GenerationState::Serving, DEFINITION, &[]).await.expect("asked");
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
    let refusal = store.promote(&new, Promotion::Automatic).await.expect_err("it has not reached the other");
    assert!(
        matches!(refusal, PromoteError::Behind { building, serving } if (building.get(), serving.get()) == (8, 9)),
        "{refusal:?}"
    );
    assert_eq!(get(store, "a").await, Some("old".into()));
    commit(store, &mut old_lease, changes(10, &[], &[])).await.expect("the old one continues");
}

/// R12
pub async fn r12_promotion_compares_shard_by_shard(store: &impl ReadModelStore) {
    let (old, new) = (serving(store).await, building(store).await);
    let refused = async |new: &Generation, positions: (u64, u64)| match store.promote(new, Promotion::Automatic).await {
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
    refused(&new, (8, 9)).await;
    store.discard(&new).await.expect("discarded");
    // From the same source: the lowest position of both is 4, but the first shard has reached less.
    let new = building(store).await;
    for (shard, position) in [("topic/0", 7), ("topic/1", 4)] {
        let mut new_lease = lease(store, &new, shard).await;
        commit(store, &mut new_lease, changes(position, &[], &[])).await.expect("committed");
    }
    refused(&new, (7, 9)).await;
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
    fenced(store.commit(&old_lease, changes(2, &[("a", "zombie")], &[])).await);
    fenced(store.confirm(&old_lease).await);
    let late = store.acquire(&old.reader, &shard("log"), Uuid::now_v7(), Takeover::WhenFree, TTL).await.expect("asked");
    assert!(late.is_none(), "the old generation can no longer be leased");
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
    fenced(store.commit(&first_lease, changes(4, &[], &[])).await);
    let second = building(store).await;
    assert_ne!(second.reader.id, first.reader.id);
    assert_eq!(store.load(&second.reader, &["a".to_owned()], usize::MAX).await.expect("loaded"), [None]);
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
    let progress = Progress { generation: new.clone(), definition: DEFINITION.into(), reached, furthest };
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
    let build = async |version| {
        store.ensure_generation(MODEL, version, GenerationState::Building, DEFINITION, &[]).await.expect("a generation")
    };
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
    let mut racers = JoinSet::new();
    for racer in 0..8 {
        let (store, definition) = (store.clone(), format!("projection {racer}"));
        racers
            .spawn(async move { store.ensure_generation(MODEL, 1, GenerationState::Serving, &definition, &[]).await });
    }
    let made: Vec<_> = racers.join_all().await.into_iter().map(|made| made.expect("made")).collect();
    assert!(made.iter().all(|generation| *generation == made[0]), "{made:?}");
    let definition = async || store.generations(MODEL).await.expect("asked").serving.expect("one serves").definition;
    let first = definition().await;
    assert!(first.starts_with("projection "), "{first}");
    store.ensure_generation(MODEL, 1, GenerationState::Serving, "another", &[]).await.expect("asked");
    assert_eq!(definition().await, first);
}
