//! Dead letters, parked keys, pauses, skipped events, and the record of what operators did.

use std::time::{Duration, Instant};

use bytes::Bytes;
use es_core::{
    Act, ActError, DeadLetter, LetterPage, Position, RecordedEvent,
    backend::{
        Acts, Changeover, Changes, CommitError, FailedLetter, Lease, NewLetter, PAGE_BYTES, Promotion, ReadModelStore,
        Redemption, Situation, Takeover,
    },
    testing::{account::AccountEvent, recorded},
};
use uuid::Uuid;

use super::read_model_store::{MODEL, TTL, at, building, changes, commit, fenced, lease, lease_of, serving, shard};

fn act() -> Act {
    Act::new("ada", "ticket 7").expect("valid")
}

/// Deposits at the positions 1, 2, …, one for each of `ids`.
fn events(ids: &[&'static str]) -> Vec<RecordedEvent> {
    recorded(ids.iter().zip(1..).map(|(id, amount)| (*id, AccountEvent::Deposited { amount })))
}

fn failing(key: &str, event: &RecordedEvent) -> NewLetter {
    NewLetter { key: key.into(), event: event.clone(), cause: Some("it does not fit".into()), attempts: 3 }
}

fn waiting(key: &str, event: &RecordedEvent) -> NewLetter {
    NewLetter { key: key.into(), event: event.clone(), cause: None, attempts: 0 }
}

/// A generation with the keys `a` (3 letters) and `b` (1 letter), at position 4.
async fn parked(store: &impl ReadModelStore) -> (Lease, Vec<RecordedEvent>) {
    let generation = serving(store).await;
    let mut lease = lease(store, &generation, "log").await;
    let events = events(&["a", "b", "a", "a"]);
    let letters =
        vec![failing("a", &events[0]), failing("b", &events[1]), waiting("a", &events[2]), waiting("a", &events[3])];
    let parking = Changes { letters, ..changes(4, &[("c", "1")], &[]) };
    commit(store, &mut lease, parking).await.expect("committed");
    (lease, events)
}

async fn letters(store: &impl ReadModelStore) -> Vec<DeadLetter> {
    store.dead_letters(MODEL, &LetterPage::first(100)).await.expect("read")
}

async fn places(store: &impl ReadModelStore) -> Vec<(String, u64)> {
    letters(store).await.into_iter().map(|letter| (letter.key, letter.event.position.get())).collect()
}

fn redemption(key: &str, handled: &[(u64, i64)], failed: Option<(u64, i64)>, is_whole: bool) -> Redemption {
    let position = Position::new;
    Redemption {
        key: key.into(),
        handled: handled.iter().map(|(at, revision)| (position(*at), *revision)).collect(),
        failed: failed.map(|(at, revision)| {
            let cause = "it still does not fit".into();
            FailedLetter { position: position(at), revision, cause }
        }),
        is_whole,
    }
}

fn redeem(lease: &Lease, redemption: Redemption, upserts: &[(&str, &str)]) -> Changes {
    let checkpoint = lease.checkpoint.clone();
    Changes { checkpoint, redemption: Some(redemption), ..changes(0, upserts, &[]) }
}

/// R19: in order, as they were delivered, with the checkpoint and the documents of other keys.
pub async fn r19_letters_commit_with_the_checkpoint_and_come_back_as_they_were(store: &impl ReadModelStore) {
    let (lease, events) = parked(store).await;
    let found = letters(store).await;
    let stored: Vec<_> = found.iter().map(|letter| (&*letter.key, letter.event.clone(), letter.attempts)).collect();
    let expected = [("a", 0, 3), ("a", 2, 0), ("a", 3, 0), ("b", 1, 3)];
    let expected = expected.map(|(key, index, attempts): (_, usize, _)| (key, events[index].clone(), attempts));
    assert_eq!(stored, expected);
    assert_eq!(found[0].cause.as_deref(), Some("it does not fit"));
    assert_eq!((&found[1].cause, &found[0].edited, found[0].revision), (&None, &None, 1));
    assert_eq!((&found[0].reader, &found[0].shard), (&lease.reader, &lease.shard));
    let keys = store.parked_keys(MODEL).await.expect("read");
    let keys: Vec<_> = keys.iter().map(|parked| (&*parked.key, parked.letters, parked.is_retry_requested)).collect();
    assert_eq!(keys, [("a", 3, false), ("b", 1, false)]);
    let situation = store.situation(&lease).await.expect("asked");
    assert_eq!((situation.parked, situation.retries, situation.letters), (vec!["a".into(), "b".into()], vec![], 4));
    assert_eq!(store.reached(MODEL).await.expect("asked").get(), 4);
    let document = store.get(MODEL, "c").await.expect("read").expect("serving");
    assert_eq!(document.found.as_deref(), Some(&b"1"[..]));
}

/// R9, R19
pub async fn r9_a_fenced_worker_parks_and_redeems_nothing(store: &impl ReadModelStore) {
    let (zombie, events) = parked(store).await;
    let next = lease_of(store, &zombie.reader, "log").await;
    let late = Changes { letters: vec![waiting("late", &events[0])], ..changes(5, &[], &[]) };
    fenced(store.commit(&zombie, late).await);
    let again = redeem(&zombie, redemption("a", &[(1, 1), (3, 1), (4, 1)], None, true), &[("a", "6")]);
    fenced(store.commit(&zombie, again).await);
    fenced(store.situation(&zombie).await);
    store.stopped(&zombie, &events[0], "late").await.expect("nothing");
    assert_eq!(places(store).await, [("a".into(), 1), ("a".into(), 3), ("a".into(), 4), ("b".into(), 2)]);
    assert!(store.stops(MODEL).await.expect("read").is_empty());
    assert_eq!(store.situation(&next).await.expect("asked").letters, 4);
}

/// Pages follow the order of reader, key and position, and have bounded bytes (R17).
pub async fn r17_pages_of_letters_join_and_have_bounded_bytes(store: &impl ReadModelStore) {
    let (mut lease, events) = parked(store).await;
    let (mut page, mut found) = (LetterPage::first(3), Vec::new());
    loop {
        let letters = store.dead_letters(MODEL, &page).await.expect("read");
        let Some(last) = letters.last() else { break };
        page = page.after(last.id());
        found.extend(letters.into_iter().map(|letter| (letter.key, letter.event.position.get())));
    }
    assert_eq!(found, places(store).await);
    let only = store.dead_letters(MODEL, &LetterPage::first(9).of_key("b")).await.expect("read");
    assert_eq!(only.len(), 1);
    let mut large = events[0].clone();
    large.data.payload = Bytes::from(vec![b' '; PAGE_BYTES / 2]);
    let letters = [5, 6, 7].map(|position| {
        large.position = Position::new(position);
        waiting("large", &large)
    });
    let parking = Changes { letters: letters.into(), ..changes(7, &[], &[]) };
    commit(store, &mut lease, parking).await.expect("committed");
    let of_key = store.dead_letters(MODEL, &LetterPage::first(9).of_key("large")).await.expect("read");
    assert_eq!(of_key.len(), 2, "the second one reaches the bytes of a page");
    assert_eq!(store.letters(&lease, "large").await.expect("read"), of_key);
}

/// R9, R19: the worker handles the letters again under its lease; what follows and their deletion are one commit.
pub async fn r19_letters_that_are_handled_again_commit_once(store: &impl ReadModelStore) {
    let (lease, _) = parked(store).await;
    store.request_retry(MODEL, "a", &act()).await.expect("parked");
    assert_eq!(store.situation(&lease).await.expect("asked").retries, ["a"]);
    let first = redeem(&lease, redemption("a", &[(1, 1)], Some((3, 1)), false), &[("a", "1")]);
    store.commit(&lease, first.clone()).await.expect("committed");
    match store.commit(&lease, first).await {
        Err(CommitError::Edited(key)) => assert_eq!(key, "a"),
        other => panic!("expected that it is made once, got {other:?}"),
    }
    let found = store.letters(&lease, "a").await.expect("read");
    let stored: Vec<_> = found.iter().map(|letter| (letter.event.position.get(), letter.revision)).collect();
    assert_eq!(stored, [(3, 2), (4, 1)]);
    assert_eq!((found[0].cause.as_deref(), found[0].attempts), (Some("it still does not fit"), 1));
    assert!(store.situation(&lease).await.expect("asked").retries.is_empty(), "the retry is over");
    let rest = redeem(&lease, redemption("a", &[(3, 2), (4, 1)], None, true), &[("a", "8")]);
    store.commit(&lease, rest).await.expect("committed");
    assert_eq!(store.situation(&lease).await.expect("asked").parked, ["b"]);
    let document = store.get(MODEL, "a").await.expect("read").expect("serving");
    assert_eq!(document.found.as_deref(), Some(&b"8"[..]));
    assert_eq!(store.reached(MODEL).await.expect("asked").get(), 4, "the checkpoint stays");
}

/// R22: an edit is not lost where the worker has read the letter before it. Seen to fail where revisions were not compared.
pub async fn r22_an_edit_while_letters_are_handled_again_refuses_the_commit(store: &impl ReadModelStore) {
    let (lease, _) = parked(store).await;
    let read = store.letters(&lease, "a").await.expect("read");
    let payload = Bytes::from_static(br#"{"amount":10}"#);
    store.edit_letter(MODEL, "a", Position::new(3), payload.clone(), &act()).await.expect("edited");
    let handled: Vec<_> = read.iter().map(|letter| (letter.event.position.get(), letter.revision)).collect();
    let again = redeem(&lease, redemption("a", &handled, None, true), &[("a", "8")]);
    assert!(matches!(store.commit(&lease, again).await, Err(CommitError::Edited(_))));
    assert!(store.get(MODEL, "a").await.expect("read").expect("serving").found.is_none(), "nothing was written");
    let found = store.letters(&lease, "a").await.expect("read");
    assert_eq!((found.len(), found[1].edited.as_ref(), found[1].revision), (3, Some(&payload), 2));
    assert_eq!(found[1].to_handle().data.payload, payload);
    assert_eq!(found[1].event.data.payload, read[1].event.data.payload, "the recorded one stays");
    let refused = store.edit_letter(MODEL, "a", Position::new(3), Bytes::from_static(b"{"), &act()).await;
    assert!(matches!(refused, Err(ActError::NotJson(_))), "{refused:?}");
}

/// R19, R22: only the worker frees a key, since it may have parked another event meanwhile.
pub async fn r19_a_key_without_letters_is_freed_by_its_worker(store: &impl ReadModelStore) {
    let (mut lease, events) = parked(store).await;
    let one = store.discard_letters(MODEL, "a", Some(Position::new(3)), &act()).await.expect("discarded");
    assert_eq!((one, store.situation(&lease).await.expect("asked").retries), (1, vec![]));
    let all = store.discard_letters(MODEL, "a", None, &act()).await.expect("discarded");
    assert_eq!((all, store.situation(&lease).await.expect("asked").retries), (2, vec!["a".into()]));
    // The worker does not know it yet.
    let mut next = events[0].clone();
    next.position = Position::new(5);
    let parking = Changes { letters: vec![waiting("a", &next)], ..changes(5, &[], &[]) };
    commit(store, &mut lease, parking).await.expect("committed");
    let again = redeem(&lease, redemption("a", &[], None, true), &[]);
    store.commit(&lease, again).await.expect("committed");
    assert_eq!(places(store).await, [("a".into(), 5), ("b".into(), 2)]);
    let again = redeem(&lease, redemption("a", &[(5, 1)], None, true), &[]);
    store.commit(&lease, again).await.expect("committed");
    assert_eq!(store.situation(&lease).await.expect("asked").parked, ["b"]);
}

/// Letters belong to a generation, and go with it.
pub async fn r12_letters_of_a_generation_go_with_it(store: &impl ReadModelStore) {
    let (old, events) = parked(store).await;
    let new = building(store).await;
    let mut rebuilding = lease(store, &new, "log").await;
    let parking = Changes { letters: vec![failing("b", &events[1])], ..changes(4, &[], &[]) };
    commit(store, &mut rebuilding, parking).await.expect("committed");
    assert_eq!(letters(store).await.len(), 5, "those of both");
    store.request_retry(MODEL, "b", &act()).await.expect("parked");
    for lease in [&old, &rebuilding] {
        assert_eq!(store.situation(lease).await.expect("asked").retries, ["b"]);
    }
    store.promote(&new, Promotion::Automatic).await.expect("promoted");
    let found = letters(store).await;
    assert_eq!((found.len(), &found[0].reader), (1, &new.reader));
    let newer = building(store).await;
    let mut discarded = lease(store, &newer, "log").await;
    let parking = Changes { letters: vec![failing("b", &events[1])], ..changes(4, &[], &[]) };
    commit(store, &mut discarded, parking).await.expect("committed");
    store.discard(&newer).await.expect("discarded");
    assert_eq!(letters(store).await, found);
    assert_eq!(store.parked_keys(MODEL).await.expect("read").len(), 1);
}

/// A new source of one shard takes the parked keys over; of several, it is not known which.
pub async fn r19_parked_keys_follow_to_another_source_only_if_it_has_one_shard(store: &impl ReadModelStore) {
    let (lease, _) = parked(store).await;
    store.release(&lease).await.expect("released");
    let partitions = [shard("topic/0"), shard("topic/1")];
    let refused = store.ensure_shards(&lease.reader, &partitions).await.expect("asked");
    assert_eq!(refused, Changeover::Parked);
    let merged = [shard("merged")];
    assert_eq!(store.ensure_shards(&lease.reader, &merged).await.expect("asked"), Changeover::Ready);
    let taken = store.acquire(&lease.reader, &merged[0], Uuid::now_v7(), Takeover::WhenFree, TTL).await;
    let next = taken.expect("asked").expect("free");
    store.request_retry(MODEL, "a", &act()).await.expect("parked");
    let situation = store.situation(&next).await.expect("asked");
    assert_eq!((situation.parked.len(), situation.retries), (2, vec!["a".to_owned()]));
    assert_eq!(store.letters(&next, "a").await.expect("read").len(), 3);
}

/// R22: a pause stays until the resumption, and workers notice both.
pub async fn r22_a_pause_lasts_until_the_reader_is_resumed(store: &impl ReadModelStore) {
    let unknown = store.pause(MODEL, &act()).await;
    assert!(matches!(unknown, Err(ActError::UnknownReader(_))), "{unknown:?}");
    let generation = serving(store).await;
    let lease = lease(store, &generation, "log").await;
    assert_eq!(store.situation(&lease).await.expect("asked"), Situation::default());
    let early = store.resume(MODEL, &act()).await;
    assert!(matches!(early, Err(ActError::NotPaused(_))), "{early:?}");
    store.pause(MODEL, &act()).await.expect("paused");
    store.pause(MODEL, &Act::new("bob", "me too").expect("valid")).await.expect("paused");
    let checkpoint = at(1);
    store.commit(&lease, Changes { checkpoint, ..Changes::default() }).await.expect("committed");
    assert_eq!(lease.acts(), Acts(2), "a commit learns of the acts");
    let pause = store.situation(&lease).await.expect("asked").paused.expect("paused");
    assert_eq!((&*pause.actor, &*pause.reason), ("ada", "ticket 7"));
    assert_eq!(store.paused(MODEL).await.expect("asked"), Some(pause));
    store.resume(MODEL, &act()).await.expect("resumed");
    assert_eq!(store.paused(MODEL).await.expect("asked"), None);
    let situation = store.situation(&lease).await.expect("asked");
    assert_eq!((situation.acts, situation.paused), (Acts(3), None));
    // A renewal learns of them too.
    let patience = Instant::now() + Duration::from_secs(30);
    while lease.acts() != Acts(3) {
        assert!(Instant::now() < patience, "the worker does not learn of the act");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// R11, R22: compare-and-set against the event at which the reader has stopped.
pub async fn r22_an_event_is_skipped_only_where_the_reader_has_stopped_at_it(store: &impl ReadModelStore) {
    let generation = serving(store).await;
    let mut lease = lease(store, &generation, "log").await;
    commit(store, &mut lease, changes(1, &[], &[])).await.expect("committed");
    let events = events(&["a", "b", "c"]);
    store.stopped(&lease, &events[2], "it does not fit").await.expect("recorded");
    let stops = store.stops(MODEL).await.expect("read");
    let at = &stops[0];
    assert_eq!(
        (stops.len(), at.position, at.event_id, &*at.cause),
        (1, events[2].position, events[2].id, "it does not fit")
    );
    let log = shard("log");
    for (place, position, id) in [(&log, 2, events[2].id), (&log, 3, events[1].id), (&shard("other"), 3, events[2].id)]
    {
        let refused = store.skip(MODEL, place, Position::new(position), id, &act()).await;
        assert!(matches!(refused, Err(ActError::NotStopped { .. })), "{refused:?}");
    }
    store.skip(MODEL, &log, at.position, at.event_id, &act()).await.expect("skipped");
    assert!(store.stops(MODEL).await.expect("read").is_empty());
    fenced(store.commit(&lease, changes(2, &[("a", "zombie")], &[])).await);
    let twice = store.skip(MODEL, &log, at.position, at.event_id, &act()).await;
    assert!(matches!(twice, Err(ActError::NotStopped { .. })), "{twice:?}");
    let next = super::read_model_store::lease(store, &generation, "log").await;
    let witness = next.checkpoint.witness.expect("the skipped event");
    assert_eq!((next.checkpoint.position.get(), witness.event_id), (3, events[2].id));
    assert_eq!(witness.recorded_at, events[2].recorded_at);
}

/// R22: each act is recorded with actor, time, reason and target; one that is refused is not.
pub async fn r22_what_operators_did_is_recorded(store: &impl ReadModelStore) {
    let (lease, events) = parked(store).await;
    let act = act();
    store.request_retry(MODEL, "a", &act).await.expect("parked");
    store.edit_letter(MODEL, "a", Position::new(1), Bytes::from_static(b"{}"), &act).await.expect("edited");
    store.discard_letters(MODEL, "b", None, &act).await.expect("discarded");
    store.discard_letters(MODEL, "a", Some(Position::new(4)), &act).await.expect("discarded");
    store.pause(MODEL, &act).await.expect("paused");
    store.resume(MODEL, &act).await.expect("resumed");
    let mut next = events[0].clone();
    next.position = Position::new(5);
    store.stopped(&lease, &next, "it does not fit").await.expect("recorded");
    store.skip(MODEL, &lease.shard, next.position, next.id, &act).await.expect("skipped");
    store.record("rebuild", MODEL, &act).await.expect("recorded");
    building(store).await;
    store.cancel_rebuild(MODEL, &act).await.expect("cancelled");
    assert!(store.generations(MODEL).await.expect("asked").building.is_none());
    assert!(matches!(store.cancel_rebuild(MODEL, &act).await, Err(ActError::NotBuilding(_))));
    assert!(store.request_retry(MODEL, "never", &act).await.is_err());
    assert!(store.discard_letters(MODEL, "never", None, &act).await.is_err());
    assert!(store.discard_letters(MODEL, "a", Some(Position::new(9)), &act).await.is_err());
    assert!(store.edit_letter("never", "a", Position::new(1), Bytes::from_static(b"{}"), &act).await.is_err());
    let all = store.acts(None, 100).await.expect("read");
    let told: Vec<_> =
        all.iter().rev().map(|record| (&*record.what, record.target.as_deref(), record.position)).collect();
    let at = |position| Some(Position::new(position));
    assert_eq!(
        told,
        [
            ("retry", Some("a"), None),
            ("edit", Some("a"), at(1)),
            ("discard", Some("b"), None),
            ("discard", Some("a"), at(4)),
            ("pause", None, None),
            ("resume", None, None),
            ("skip", Some("log"), at(5)),
            ("rebuild", None, None),
            ("cancel-rebuild", None, None),
        ]
    );
    for record in &all {
        assert_eq!((&*record.actor, &*record.reason, &*record.reader), ("ada", "ticket 7", MODEL));
    }
    assert!(all.windows(2).all(|pair| pair[0].id > pair[1].id && pair[0].at >= pair[1].at));
    assert_eq!(store.acts(Some(all[2].id), 2).await.expect("read"), all[3..5]);
}
