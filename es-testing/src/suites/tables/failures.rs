//! What becomes of an event that a table projection cannot write.

use std::{collections::BTreeSet, time::Duration};

use es_core::{DeadLetters, EngineError, FailurePolicy, Position};
use tokio_util::sync::CancellationToken;

use super::{Entries, TableFixture, all, build, expected, projector, reaches, spawn};
use crate::suites::{
    engines_failures::{Fault, Faults, LIMIT, act, deposit, eventually, letters, no_letters, stops, unreadable},
    engines_project::PATIENCE,
    engines_standby::append_of_newer_code,
};

/// R9: what `write` did before it failed is rolled back, also when it panicked or was interrupted.
pub async fn r9_a_failed_batch_leaves_nothing<F: TableFixture>(store: &F::Store) {
    build::<F, 1>(store).await;
    deposit(store, &[("a", 1), ("b", 2)]).await;
    for fault in [Fault::Refuse, Fault::Panic, Fault::Slow] {
        let faults = Faults::of([(1, fault)]);
        let failing = projector(Entries::<F> { faults, ..Entries::default() }, store).time_limit(LIMIT);
        let ended = failing.run(CancellationToken::new()).await.expect_err("it stops");
        let event = match &ended {
            EngineError::Unwritten { event, events: 1, .. } if fault == Fault::Refuse => event,
            EngineError::Panicked { event } if fault == Fault::Panic => event,
            // The server may be faster to end the statement.
            EngineError::TooSlow { event, .. } if fault == Fault::Slow => event,
            other => panic!("{fault:?}: {other:?}"),
        };
        assert_eq!(event.position, Position::new(1));
        assert_eq!(all::<F, 1>(store).await, [], "{fault:?}");
    }
}

/// R11
pub async fn r11_an_event_that_no_program_knows_in_time_stops_the_projector<F: TableFixture>(store: &F::Store) {
    build::<F, 1>(store).await;
    let unknown = append_of_newer_code(store, "account.frozen", 1).await;
    let retry = Duration::from_millis(10);
    let impatient = projector(Entries::<F>::default(), store).standby(retry).standby_limit(10 * retry);
    let ended = tokio::time::timeout(PATIENCE, impatient.run(CancellationToken::new())).await.expect("in time");
    assert!(matches!(&ended, Err(EngineError::NeverKnown { reason, .. }) if reason.position == unknown), "{ended:?}");
}

/// R11: the events before it are committed, it and those after it are not.
pub async fn r11_an_event_that_cannot_be_written_stops_the_projector_before_it<F: TableFixture>(store: &F::Store) {
    build::<F, 1>(store).await;
    deposit(store, &[("a", 1), ("a", 2), ("a", 3), ("a", 4), ("a", 5), ("a", 6), ("a", 7), ("a", 8)]).await;
    let faults = Faults::of([(5, Fault::Refuse)]);
    let failing = projector(Entries::<F> { faults: faults.clone(), ..Entries::default() }, store);
    let Err(EngineError::Unwritten { event, events: 1, .. }) = failing.run(CancellationToken::new()).await else {
        panic!("expected it to stop at the event")
    };
    assert_eq!(event.position, Position::new(5));
    assert_eq!(all::<F, 1>(store).await, expected::<F>(store, 1, &[5, 6, 7, 8]).await);
    faults.mend();
    let shutdown = CancellationToken::new();
    let running = spawn(failing, &shutdown);
    reaches::<F, 1>(store, Position::new(8)).await;
    assert_eq!(all::<F, 1>(store).await, expected::<F>(store, 1, &[]).await);
    stops(running, &shutdown).await;
}

/// R19: an error of the database, a panic and a write that takes too long hold up their own keys.
pub async fn r19_a_failing_event_holds_up_its_key_and_nothing_else<F: TableFixture>(store: &F::Store) {
    build::<F, 1>(store).await;
    let deposits =
        [("a", 1), ("b", 11), ("a", 2), ("c", 21), ("b", 12), ("d", 31), ("c", 22), ("a", 3), ("b", 13), ("d", 32)];
    let last = deposit(store, &deposits).await;
    let faults = Faults::of([(2, Fault::Refuse), (12, Fault::Panic), (22, Fault::Slow)]);
    let shutdown = CancellationToken::new();
    let parking = projector(Entries::<F> { faults, ..Entries::default() }, store).time_limit(LIMIT);
    let running = spawn(parking.on_failure(FailurePolicy::park()), &shutdown);
    reaches::<F, 1>(store, last).await;
    let parked = [3, 5, 7, 8, 9];
    assert_eq!(all::<F, 1>(store).await, expected::<F>(store, 1, &parked).await);
    let letters = letters(store, "entries").await;
    let positions: BTreeSet<_> = letters.iter().map(|letter| letter.event.position.to_i64()).collect();
    assert_eq!(positions, BTreeSet::from(parked));
    let keys: BTreeSet<_> = letters.iter().map(|letter| letter.key.as_str()).collect();
    assert_eq!(keys, BTreeSet::from(["account-a", "account-b", "account-c"]));
    stops(running, &shutdown).await;
    // The key of an event that cannot be decoded is not known.
    let unknown = unreadable(store, "z").await;
    let parking = projector(Entries::<F>::default(), store).on_failure(FailurePolicy::park());
    match parking.run(CancellationToken::new()).await.expect_err("it stops") {
        EngineError::Unparkable { event, .. } => assert_eq!(event.position, unknown),
        other => panic!("expected an event that cannot be parked, got {other:?}"),
    }
}

/// R19: in their order, together with their deletion.
pub async fn r19_a_retry_writes_the_letters_of_a_key_once<F: TableFixture>(store: &F::Store) {
    build::<F, 1>(store).await;
    let faults = Faults::of([(1, Fault::Refuse), (3, Fault::Refuse)]);
    let shutdown = CancellationToken::new();
    let parking = projector(Entries::<F> { faults: faults.clone(), ..Entries::default() }, store);
    let running = spawn(parking.on_failure(FailurePolicy::park()), &shutdown);
    let last = deposit(store, &[("a", 1), ("a", 2), ("a", 3), ("b", 4), ("a", 5)]).await;
    reaches::<F, 1>(store, last).await;
    assert_eq!(all::<F, 1>(store).await, expected::<F>(store, 1, &[1, 2, 3, 5]).await);
    faults.0.lock().expect("no panic under it").remove(&1);
    store.request_retry("entries", "account-a", &act()).await.expect("parked");
    eventually("the letters before the one that fails again are written", async || {
        (letters(store, "entries").await.len() == 2).then_some(())
    })
    .await;
    assert_eq!(all::<F, 1>(store).await, expected::<F>(store, 1, &[3, 5]).await);
    eventually("the retry is over", async || {
        let parked = store.parked_keys("entries").await.expect("read");
        (!parked[0].is_retry_requested).then_some(())
    })
    .await;
    faults.mend();
    store.request_retry("entries", "account-a", &act()).await.expect("parked");
    no_letters(store, "entries").await;
    let last = deposit(store, &[("a", 6)]).await;
    reaches::<F, 1>(store, last).await;
    assert_eq!(all::<F, 1>(store).await, expected::<F>(store, 1, &[]).await);
    stops(running, &shutdown).await;
}

/// R19
pub async fn r19_an_event_that_is_written_at_the_last_attempt_is_not_parked<F: TableFixture>(store: &F::Store) {
    build::<F, 1>(store).await;
    let last = deposit(store, &[("a", 1), ("a", 2), ("b", 3)]).await;
    let faults = Faults::of([(2, Fault::Refuse)]);
    let shutdown = CancellationToken::new();
    let parking = projector(Entries::<F> { faults, heals: true, ..Entries::default() }, store);
    let running = spawn(parking.on_failure(FailurePolicy::park()), &shutdown);
    reaches::<F, 1>(store, last).await;
    assert_eq!(all::<F, 1>(store).await, expected::<F>(store, 1, &[]).await);
    assert!(letters(store, "entries").await.is_empty());
    stops(running, &shutdown).await;
}

/// R19
pub async fn r19_a_projector_stops_before_one_letter_too_many<F: TableFixture>(store: &F::Store) {
    build::<F, 1>(store).await;
    deposit(store, &[("a", 1), ("b", 2), ("c", 3)]).await;
    let faults = Faults::of([(1, Fault::Refuse), (2, Fault::Refuse)]);
    let parking = projector(Entries::<F> { faults, ..Entries::default() }, store).on_failure(FailurePolicy::park());
    match parking.most_letters(1).run(CancellationToken::new()).await.expect_err("it stops") {
        EngineError::TooManyLetters { event, limit } => assert_eq!((event.position, limit), (Position::new(2), 1)),
        other => panic!("expected too many letters, got {other:?}"),
    }
    let letters = letters(store, "entries").await;
    assert_eq!(letters.iter().map(|letter| letter.key.as_str()).collect::<Vec<_>>(), ["account-a"]);
}
