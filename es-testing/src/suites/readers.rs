//! Read model stores: readers without documents, which is what policies are.

use es_core::{
    Act, LetterPage, Position,
    backend::{Changeover, Changes, EnsureError, GenerationSet, GenerationState, NewLetter, ReadModelStore, Shard},
    testing::{account::AccountEvent, recorded},
};
use tokio::task::JoinSet;

use super::read_model_store::{DEFINITION, MODEL, building, changes, commit, fenced, lease_of};

/// Also if many workers ask at once, each with a definition of its own.
pub async fn a_policy_is_made_once_and_is_no_generation<S: ReadModelStore + Clone>(store: &S) {
    assert_eq!(store.reached("policy").await.expect("asked"), Position::ZERO);
    let mut racers = JoinSet::new();
    for racer in 0..8 {
        let store = store.clone();
        racers.spawn(async move { store.ensure_reader("policy", &format!("policy {racer}")).await.expect("made") });
    }
    let made = racers.join_all().await;
    assert!(made.iter().all(|one| *one == made[0]), "{made:?}");
    let (reader, definition) = &made[0];
    assert_eq!((reader.name.as_str(), definition.starts_with("policy ")), ("policy", true));
    let mut lease = lease_of(store, reader, "log").await;
    commit(store, &mut lease, changes(5, &[], &[])).await.expect("committed");
    assert_eq!(store.reached("policy").await.expect("asked"), Position::new(5));
    assert_eq!(&store.ensure_reader("policy", "policy").await.expect("asked"), &made[0]);
    assert_eq!(store.generations("policy").await.expect("asked"), GenerationSet::default());
    assert_eq!(store.get("policy", "a").await.expect("read"), None);
}

/// The definition shows the caller that the name belongs to the other.
pub async fn a_name_belongs_to_a_policy_or_to_a_projection(store: &impl ReadModelStore) {
    let building = building(store).await;
    let found = store.ensure_reader(MODEL, "policy").await.expect("asked");
    assert_eq!(found, (building.reader, DEFINITION.to_owned()));
    assert_eq!(store.generations(MODEL).await.expect("asked").serving, None, "nothing is made beside it");
    store.ensure_reader("policy", "policy Watch").await.expect("made");
    for state in [GenerationState::Serving, GenerationState::Building] {
        let refused = store.ensure_generation("policy", 1, state, DEFINITION, &[]).await;
        let is_told = |error: &EnsureError| matches!(error, EnsureError::OtherReader { definition } if definition == "policy Watch");
        assert!(refused.as_ref().is_err_and(is_told), "{refused:?}");
    }
    assert_eq!(store.generations("policy").await.expect("asked"), GenerationSet::default());
}

/// Of two programs at once too.
pub async fn of_a_policy_and_a_projection_at_once_one_gets_the_name<S: ReadModelStore + Clone>(store: &S) {
    for round in 0..20 {
        let name = format!("contested-{round}");
        let mut racers = JoinSet::new();
        for racer in 0..8 {
            let (store, name) = (store.clone(), name.clone());
            racers.spawn(async move {
                if racer % 2 == 0 {
                    return store.ensure_reader(&name, "policy").await.expect("made").1;
                }
                match store.ensure_generation(&name, 1, GenerationState::Building, DEFINITION, &[]).await {
                    Ok(_) => DEFINITION.to_owned(),
                    Err(EnsureError::OtherReader { definition }) => definition,
                    Err(error) => panic!("{error:?}"),
                }
            });
        }
        let owners = racers.join_all().await;
        assert!(owners.iter().all(|owner| *owner == owners[0]), "{name}: {owners:?}");
    }
}

/// R19, R22: what operators do to a policy is what they do to a projection.
pub async fn r22_a_policy_has_letters_stops_and_pauses(store: &impl ReadModelStore) {
    let (reader, _) = store.ensure_reader("policy", "policy Watch").await.expect("made");
    let act = Act::new("ada", "ticket 7").expect("valid");
    let mut lease = lease_of(store, &reader, "log").await;
    let events = recorded([1, 2].map(|amount| ("a", AccountEvent::Deposited { amount })));
    let letter = |cause| NewLetter { key: "account-a".into(), event: events[0].clone(), cause, attempts: 1 };
    let letters = vec![letter(Some("it does not fit".into()))];
    commit(store, &mut lease, Changes { letters, ..changes(1, &[], &[]) }).await.expect("committed");
    let found = store.dead_letters("policy", &LetterPage::first(9)).await.expect("read");
    assert_eq!((found.len(), &found[0].reader, &found[0].event), (1, &reader, &events[0]));
    assert_eq!(store.letters(&lease, "account-a").await.expect("read"), found);
    let parked = store.parked_keys("policy").await.expect("read");
    assert_eq!((parked.len(), parked[0].reader, parked[0].letters), (1, reader.id, 1));
    store.edit_letter("policy", "account-a", Position::new(1), "{}".into(), &act).await.expect("edited");
    store.request_retry("policy", "account-a", &act).await.expect("parked");
    store.pause("policy", &act).await.expect("known");
    let situation = store.situation(&lease).await.expect("asked");
    assert_eq!((situation.acts.0, situation.letters, situation.retries.len()), (3, 1, 1));
    assert!(situation.paused.is_some());
    assert_eq!(store.discard_letters("policy", "account-a", None, &act).await.expect("parked"), 1);
    store.stopped(&lease, &events[1], "it does not fit").await.expect("recorded");
    let stops = store.stops("policy").await.expect("read");
    assert_eq!((stops.len(), stops[0].reader, stops[0].position), (1, reader.id, Position::new(2)));
    store.skip("policy", &lease.shard, stops[0].position, stops[0].event_id, &act).await.expect("skipped");
    assert_eq!(store.reached("policy").await.expect("asked"), Position::new(2));
    fenced(store.commit(&lease, changes(3, &[], &[])).await);
}

/// A consumer may read a topic with its retry topics. Seen to fail where one shard of another source makes it another source.
pub async fn r9_a_topic_that_is_added_to_others_takes_nothing_from_them(store: &impl ReadModelStore) {
    let (reader, _) = store.ensure_reader("payments", "consumer").await.expect("made");
    let shards = |names: &[&str]| names.iter().map(|name| Shard::from(*name)).collect::<Vec<_>>();
    let (alone, together) = (["payments/0", "payments/1"], ["payments/0", "payments/1", "payments.retry.1/0"]);
    let ensured = async |names: &[&str]| store.ensure_shards(&reader, &shards(names)).await.expect("asked");
    assert_eq!(ensured(&alone).await, Changeover::Ready);
    let mut held = Vec::new();
    for (name, position) in [("payments/0", 7), ("payments/1", 5)] {
        let mut lease = lease_of(store, &reader, name).await;
        commit(store, &mut lease, changes(position, &[], &[])).await.expect("committed");
        held.push(lease);
    }
    // Its workers hold their leases meanwhile.
    assert_eq!(ensured(&together).await, Changeover::Ready);
    let mut retry = lease_of(store, &reader, "payments.retry.1/0").await;
    assert_eq!(retry.checkpoint.position, Position::ZERO, "it begins at its first record");
    commit(store, &mut retry, changes(1, &[], &[])).await.expect("committed");
    for lease in &held {
        store.confirm(lease).await.expect("it holds");
    }
    // A program of which the other topic is not known yet, or not any more.
    assert_eq!(ensured(&alone).await, Changeover::Ready);
    store.confirm(&retry).await.expect("it holds");
    assert_eq!(lease_of(store, &reader, "payments/1").await.checkpoint.position, Position::new(5));
    for lease in held.into_iter().chain([retry]) {
        store.release(&lease).await.expect("released");
    }
    let other = lease_of(store, &reader, "payments/1").await;
    store.release(&other).await.expect("released");
    assert_eq!(ensured(&["shipments/0"]).await, Changeover::Uneven, "another topic is another source");
}
