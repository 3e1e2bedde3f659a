use std::{sync::Mutex, time::Duration};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::{
    event::{EventData, NewEvent},
    memory::MemoryStore,
    read::{
        definition,
        projector::Projector,
        read_model::{
            Act, Amendment, Changes, Extent, FieldChange, FieldValue, GenerationState, Generations, Leases, Shard,
            Takeover,
        },
        samples::{Distinct, Texts},
        scripted::Watched,
        source::LogSource,
    },
    stream::{Expected, StreamId},
    testing::account::{AccountEvent, Histories, Turnover},
    write::append::Append,
};

async fn append(store: &MemoryStore, id: &str, event: NewEvent) {
    let stream = StreamId::new("account", id).expect("an id");
    store.append(Append::new(stream, Expected::Any, vec![event])).await.expect("appended");
}

async fn deposit(store: &MemoryStore, id: &str, amount: u64) {
    append(store, id, NewEvent::of(&AccountEvent::Deposited { amount }).expect("an event")).await;
}

/// An event that no program can read.
async fn misfit(store: &MemoryStore, id: &str) {
    let event = NewEvent::of(&AccountEvent::Deposited { amount: 1 }).expect("an event");
    append(store, id, NewEvent { data: EventData { payload: Bytes::from_static(b"{}"), ..event.data }, ..event }).await;
}

/// How many texts of these sizes with their quotes, under keys of two bytes, are kept within `limit`.
async fn kept(sizes: &[u64], limit: usize) -> usize {
    let log = MemoryStore::new();
    for (number, size) in sizes.iter().enumerate() {
        deposit(&log, &format!("k{number}"), size - 2).await;
    }
    let mut refold = Refold::new(&Texts, &log, |_| true).within(limit);
    refold.advance(Position::new(sizes.len() as u64), &mut |_, _| {}).await.expect("folded");
    refold.documents.len()
}

/// Each takes its key, its text and [`ENTRY`].
#[tokio::test]
async fn r17_documents_that_fit_into_memory_are_kept_and_of_more_half_is_given_up() {
    let each = 2 + 10 + ENTRY;
    assert_eq!(kept(&[10; 4], 4 * each).await, 4);
    assert_eq!(kept(&[10; 4], 4 * each - 1).await, 2);
    assert_eq!(kept(&[1_600; 2], 2 * (1_602 + ENTRY)).await, 2);
    assert_eq!(kept(&[1_600; 2], 2 * (1_602 + ENTRY) - 1).await, 1);
}

/// The first one counts whole, and each later one a sixteenth.
#[tokio::test]
async fn r17_the_size_of_documents_is_the_mean_of_those_measured_last() {
    let mean = (12 * 15 + 1_602) / 16;
    assert_eq!(kept(&[10, 1_600], 2 * (mean + ENTRY)).await, 2);
    assert_eq!(kept(&[10, 1_600], 2 * (mean + ENTRY) - 1).await, 1);
}

/// Where its shards have not come, the reader will perhaps park the key: only its own fold ends.
#[tokio::test]
async fn r19_an_event_that_cannot_be_read_ends_the_fold_of_its_key_alone_where_the_reader_has_not_come() {
    let log = MemoryStore::new();
    deposit(&log, "a", 1).await;
    misfit(&log, "a").await;
    deposit(&log, "b", 1).await;
    let keys = || ["a", "b"].map(str::to_owned).into();
    let end = Position::new(3);

    let mut refold = Refold::new(&Histories, &log, |_| true);
    let failed = refold.advance(end, &mut |_, _| {}).await;
    assert!(matches!(failed, Err(RefoldError::Fold(EngineError::Decode(_)))), "{failed:?}");
    let refold = Refold::new(&Histories, &log, |_| true);
    let mut aside = refold.aside(keys(), &Exceptions::default());
    aside.advance(end, &mut |_, _| {}).await.expect("the other key goes on");
    assert_eq!((aside.document("a"), aside.document("b")), (Some(&vec![1]), Some(&vec![1])));

    // In the order of the log it is not known whose event it is.
    let refold = Refold::new(&Turnover, &log, |_| true);
    let failed = refold.aside(keys(), &Exceptions::default()).advance(end, &mut |_, _| {}).await;
    assert!(failed.is_err(), "{failed:?}");
}

/// A key that waited when the log was folded, and does not wait any more when its document differs.
#[tokio::test]
async fn r19_a_key_that_goes_on_while_it_is_verified_is_not_compared() {
    let store = Watched::default();
    for amount in [1, 2] {
        deposit(&store.memory, "a", amount).await;
    }
    deposit(&store.memory, "b", 3).await;
    let projector = Projector::new(Histories, LogSource::new(store.memory.clone()), store.memory.clone());
    projector.rebuild(CancellationToken::new()).await.expect("built");
    let mut parked = Exceptions::default();
    parked.park("a", Position::new(2));
    store.excepts(parked);
    let (found, limit) = (Mutex::new(Vec::new()), usize::MAX);
    let place = Place { log: &store.memory, store: &store, share: 1.0, limit };
    let mut report = |difference: Difference| found.lock().expect("nothing panics under it").push(difference);
    let verified = verify(&Histories, place, &mut report).await.expect("verified");
    assert_eq!((verified.compared, verified.differing), (1, 0), "{found:?}");
}

#[tokio::test]
async fn r22_of_a_sample_only_its_own_amendments_are_told() {
    let store = Watched::default();
    deposit(&store.memory, "a", 1).await;
    let projector = Projector::new(Histories, LogSource::new(store.memory.clone()), store.memory.clone());
    projector.rebuild(CancellationToken::new()).await.expect("built");
    for (share, told) in [(1.0, 1), (0.0, 0)] {
        let mut edited = Exceptions::default();
        let (position, extent, payload) = (Position::new(1), Extent::Key("a".to_owned()), None);
        edited.amend(Amendment { position, extent, payload });
        store.excepts(edited);
        let place = Place { log: &store.memory, store: &store, share, limit: usize::MAX };
        let verified = verify(&Histories, place, &mut |_| {}).await.expect("verified");
        assert_eq!(verified.amended.len(), told, "{share}");
    }
}

/// A read model of which more is wrong is to be rebuilt.
#[tokio::test]
async fn r22_a_thousand_documents_are_mended_and_one_more_is_refused() {
    for (count, is_mended) in [(1_000, true), (1_001, false)] {
        let store = MemoryStore::new();
        let projector = Projector::new(Histories, LogSource::new(store.clone()), store.clone());
        let built = projector.rebuild(CancellationToken::new()).await.expect("built").expect("not interrupted");
        let lease =
            store.acquire(&built.reader, &LogSource::shard(), Uuid::nil(), Takeover::Always, Duration::MAX).await;
        let lease = lease.expect("asked").expect("taken");
        let upserts = (0..count).map(|number| (number.to_string(), "[1]".into())).collect();
        let changes = Changes { upserts, checkpoint: lease.checkpoint.clone(), ..Changes::default() };
        store.commit(&lease, changes).await.expect("committed");
        let place = Place { log: &store, store: &store, share: 1.0, limit: usize::MAX };
        let act = Act::new("ada", "ticket 8").expect("valid");
        let healed = heal(&Histories, place, &store, &act, &mut |_| {}).await;
        match healed {
            Ok(verified) => assert_eq!((verified.mended, is_mended), (count, true)),
            Err(error) => assert!(!is_mended && matches!(error, RefoldError::TooManyDiffer { most: 1_000 }), "{error}"),
        }
    }
}

/// All keys wait behind it, and not only its own.
#[tokio::test]
async fn what_waits_behind_an_event_goes_on_in_a_history_without_it() {
    let store = Watched::default();
    deposit(&store.memory, "a", 1).await;
    let projector = Projector::new(Histories, LogSource::new(store.memory.clone()), store.memory.clone());
    projector.rebuild(CancellationToken::new()).await.expect("built");
    for id in ["a", "b"] {
        deposit(&store.memory, id, 1).await;
    }
    let mut stopped = Exceptions::default();
    stopped.stop(Shard::whole("log"), Position::new(2));
    store.excepts(stopped);
    let without = WhatIf::default().without(Position::new(2));
    let found = what_if(&Histories, &store.memory, &store, &without).await.expect("folded").documents;
    let found: Vec<_> =
        found.iter().map(|other| (&*other.key, other.actual.is_some(), other.hypothetical.is_some())).collect();
    assert_eq!(found, [("b", false, true)]);
}

#[test]
fn trying_again_may_help_where_the_generation_or_a_store_will_be_there() {
    let event = Location { position: Position::new(7), event: "account-a@1".to_owned() };
    let lost = || ReadModelError("the connection was lost".into());
    for (error, is_transient) in [
        (RefoldError::NotServing, true),
        (RefoldError::Replaced, true),
        (RefoldError::Uneven { least: Position::new(1), greatest: Position::new(2) }, true),
        (RefoldError::TooFast, true),
        (ReadError::Store("the connection was lost".into()).into(), true),
        (lost().into(), true),
        (EngineError::from(lost()).into(), true),
        (RefoldError::Added { event: "account-a".to_owned(), cause: Box::new(lost().into()) }, true),
        (EngineError::Panicked { event }.into(), false),
        (RefoldError::OtherVersion { serving: 2, ours: 1 }, false),
    ] {
        assert_eq!(error.is_transient(), is_transient, "{error}");
    }
}

/// The number 7 under `a`, in a generation that is being built, with a field that says 8.
pub(super) async fn drifted() -> (MemoryStore, crate::Generation) {
    let (store, shard) = (MemoryStore::new(), Shard::whole("log"));
    let (name, fields) = (Distinct::NAME, definition::fields::<Distinct>());
    let made = store.ensure_generation(name, 1, GenerationState::Building, "projection", &fields).await;
    let generation = made.expect("made");
    store.ensure_shards(&generation.reader, std::slice::from_ref(&shard)).await.expect("made");
    let lease =
        store.acquire(&generation.reader, &shard, Uuid::now_v7(), Takeover::Always, Duration::from_secs(5)).await;
    let value = Some(FieldValue { number: 8, text: "8".to_owned() });
    let field = FieldChange { key: "a".to_owned(), field: "amount", is_unique: true, value, passed: Vec::new() };
    let upserts = vec![("a".to_owned(), "7".into())];
    let changes = Changes { upserts, fields: vec![field], ..Changes::default() };
    store.commit(&lease.expect("asked").expect("taken"), changes).await.expect("committed");
    (store, generation)
}
