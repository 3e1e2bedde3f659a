//! Dead letters that are handled again, discarded, or one too many, on every store.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    engines_failures::{
        Amounts, CLOSES, Fault, Faults, Watch, act, begin, deposit, documents, eventually, expected, letters,
        no_letters, projector, reaches, stops,
    },
    engines_project::{PATIENCE, Store, spawn},
    refold::forge,
};
use es_core::{EngineError, FailurePolicy, Position, Projection};

/// R19, R22: a retry that fails again keeps what is left with the new cause; an edited payload is handled; what is discarded is not.
pub async fn r19_a_retry_that_fails_again_keeps_the_rest_in_order(store: &impl Store) {
    let faults = Faults::of([(1, Fault::Refuse), (3, Fault::Panic)]);
    let projection = Amounts { faults: faults.clone(), ..Amounts::default() };
    begin(projection.clone(), store).await;
    let last = deposit(store, &[("a", 1), ("a", 2), ("a", 3), ("a", 4), ("a", 5)]).await;
    let shutdown = CancellationToken::new();
    let running = spawn(projector(projection, store, FailurePolicy::park()), &shutdown);
    reaches::<Amounts>(store, last).await;
    faults.0.lock().expect("no panic under it").remove(&1);
    store.request_retry(Amounts::NAME, "a", &act()).await.expect("parked");
    let failed = eventually("it fails again", async || {
        letters(store, Amounts::NAME).await.into_iter().next().filter(|letter| letter.event.position.get() == 3)
    });
    let failed = failed.await;
    assert!(failed.cause.as_deref().is_some_and(|cause| cause.contains("panicked")), "{failed:?}");
    assert_eq!(documents::<Amounts>(store).await["a"], [1, 2]);
    let parked = store.parked_keys(Amounts::NAME).await.expect("read");
    assert_eq!((parked[0].letters, parked[0].is_retry_requested), (3, false));
    // The log keeps what was recorded.
    let payload = Bytes::from_static(br#"{"amount":30}"#);
    store.edit_letter(Amounts::NAME, "a", Position::new(3), payload, &act()).await.expect("edited");
    store.discard_letters(Amounts::NAME, "a", Some(Position::new(4)), &act()).await.expect("discarded");
    store.request_retry(Amounts::NAME, "a", &act()).await.expect("parked");
    no_letters(store, Amounts::NAME).await;
    let documents = documents::<Amounts>(store).await;
    assert_eq!((&documents["a"][..], &documents["all"][..]), (&[1, 2, 30, 5][..], &[1, 2, 3, 4, 5][..]));
    stops(running, &shutdown).await;
}

/// R19: what the letters of a key delete is gone when they are handled again. Seen to fail where the redemption commits only what
/// they change.
pub async fn r19_a_retry_deletes_what_its_letters_delete(store: &impl Store) {
    let faults = Faults::of([(2, Fault::Refuse)]);
    let projection = Amounts { faults: faults.clone(), ..Amounts::default() };
    begin(projection.clone(), store).await;
    let last = deposit(store, &[("a", 1), ("b", 11), ("a", 2), ("a", CLOSES)]).await;
    let shutdown = CancellationToken::new();
    let running = spawn(projector(projection, store, FailurePolicy::park()), &shutdown);
    reaches::<Amounts>(store, last).await;
    assert_eq!(documents::<Amounts>(store).await["a"], [1]);
    faults.mend();
    store.request_retry(Amounts::NAME, "a", &act()).await.expect("parked");
    no_letters(store, Amounts::NAME).await;
    let left = expected(&[("all", &[1, 11, 2, CLOSES]), ("b", &[11])]);
    assert_eq!(documents::<Amounts>(store).await, left);
    stops(running, &shutdown).await;
}

/// R19: a retry that meets what is no fault of its letter stops the reader, and is found again. Seen to fail where that counted as
/// another failure of the letter: an operator had to ask again.
pub async fn r19_a_retry_that_meets_a_document_that_does_not_fit_is_not_over(store: &impl Store) {
    let faults = Faults::of([(2, Fault::Refuse)]);
    let projection = Amounts { faults: faults.clone(), ..Amounts::default() };
    begin(projection.clone(), store).await;
    let last = deposit(store, &[("a", 1), ("a", 2)]).await;
    let shutdown = CancellationToken::new();
    let running = spawn(projector(projection.clone(), store, FailurePolicy::park()), &shutdown);
    reaches::<Amounts>(store, last).await;
    stops(running, &shutdown).await;
    forge(store, Amounts::NAME, &[("a", r#""no list""#)], &[]).await;
    faults.mend();
    store.request_retry(Amounts::NAME, "a", &act()).await.expect("parked");
    let reader = projector(projection.clone(), store, FailurePolicy::park());
    let ended = tokio::time::timeout(PATIENCE, reader.run(CancellationToken::new())).await.expect("it ends");
    assert!(matches!(ended, Err(EngineError::Document { .. })), "{ended:?}");
    let parked = store.parked_keys(Amounts::NAME).await.expect("read");
    assert_eq!((parked[0].letters, parked[0].is_retry_requested), (1, true));
    forge(store, Amounts::NAME, &[("a", "[1]")], &[]).await;
    let shutdown = CancellationToken::new();
    let running = spawn(projector(projection, store, FailurePolicy::park()), &shutdown);
    no_letters(store, Amounts::NAME).await;
    assert_eq!(documents::<Amounts>(store).await["a"], [1, 2]);
    stops(running, &shutdown).await;
}

/// R19: all letters of a key are discarded, and it continues with its next event.
pub async fn r19_a_key_whose_letters_are_discarded_continues(store: &impl Store) {
    let projection = Amounts { faults: Faults::of([(1, Fault::Refuse)]), ..Amounts::default() };
    begin(projection.clone(), store).await;
    let last = deposit(store, &[("a", 1), ("a", 2)]).await;
    let shutdown = CancellationToken::new();
    let running = spawn(projector(projection, store, FailurePolicy::park()), &shutdown);
    reaches::<Amounts>(store, last).await;
    assert_eq!(store.discard_letters(Amounts::NAME, "a", None, &act()).await.expect("discarded"), 2);
    no_letters(store, Amounts::NAME).await;
    let last = deposit(store, &[("a", 3)]).await;
    reaches::<Amounts>(store, last).await;
    assert_eq!(documents::<Amounts>(store).await["a"], [3]);
    stops(running, &shutdown).await;
}

/// R19: what is committed by then stays, and the reader stops at the letter that is one too many.
pub async fn r19_dead_letters_are_bounded(store: &impl Store) {
    let projection = Amounts { faults: Faults::of([(1, Fault::Refuse)]), ..Amounts::default() };
    begin(projection.clone(), store).await;
    deposit(store, &[("a", 1), ("b", 2), ("a", 3), ("b", 4), ("a", 5), ("b", 6)]).await;
    let bounded = projector(projection, store, FailurePolicy::park()).most_letters(2);
    for _ in 0..2 {
        match bounded.run(CancellationToken::new()).await.expect_err("it stops") {
            EngineError::TooManyLetters { event, limit: 2 } => assert_eq!(event.position, Position::new(5)),
            other => panic!("expected too many letters, got {other:?}"),
        }
        let stored = (letters(store, Amounts::NAME).await.len(), documents::<Amounts>(store).await);
        assert_eq!(stored, (2, expected(&[("all", &[1, 2, 3, 4]), ("b", &[2, 4])])));
    }
    assert_eq!(store.stops(Amounts::NAME).await.expect("read")[0].position, Position::new(5));
}

/// R18, R19: the worker that takes a shard knows its parked keys and the retries that are requested. Seen to fail where they were
/// not read with the lease.
pub async fn r19_the_next_worker_knows_the_parked_keys(store: &impl Store) {
    let faults = Faults::of([(1, Fault::Refuse)]);
    let projection = Amounts { faults: faults.clone(), ..Amounts::default() };
    begin(projection.clone(), store).await;
    let first = deposit(store, &[("a", 1)]).await;
    let shutdown = CancellationToken::new();
    let running = spawn(projector(projection.clone(), store, FailurePolicy::park()), &shutdown);
    reaches::<Amounts>(store, first).await;
    stops(running, &shutdown).await;
    // Another program, which could handle the event, does not handle the next one before it.
    faults.mend();
    let last = deposit(store, &[("a", 2), ("b", 3)]).await;
    let shutdown = CancellationToken::new();
    let running = spawn(projector(projection.clone(), store, FailurePolicy::stop()), &shutdown);
    reaches::<Amounts>(store, last).await;
    assert_eq!(documents::<Amounts>(store).await, expected(&[("all", &[1, 2, 3]), ("b", &[3])]));
    stops(running, &shutdown).await;
    store.request_retry(Amounts::NAME, "a", &act()).await.expect("parked");
    let shutdown = CancellationToken::new();
    let running = spawn(projector(projection, store, FailurePolicy::stop()), &shutdown);
    no_letters(store, Amounts::NAME).await;
    assert_eq!(documents::<Amounts>(store).await["a"], [1, 2]);
    stops(running, &shutdown).await;
}

/// R9, R19: workers are dropped while they handle letters again, before and after the commit; each letter counts once, in order,
/// while writers continue. Seen to fail on `SQLite` where documents and the end of the letters were two commits.
pub async fn r9_a_crash_while_letters_are_handled_again_repeats_and_loses_none(store: &impl Store) {
    let faults = Faults::of([(1, Fault::Refuse)]);
    let parking = Amounts { faults: faults.clone(), ..Amounts::default() };
    begin(parking.clone(), store).await;
    let deposits: Vec<_> = (1..=120).map(|amount| ("a", amount)).collect();
    let last = deposit(store, &deposits).await;
    let shutdown = CancellationToken::new();
    let running = spawn(projector(parking, store, FailurePolicy::park()), &shutdown);
    reaches::<Amounts>(store, last).await;
    stops(running, &shutdown).await;
    assert_eq!(letters(store, Amounts::NAME).await.len(), 100, "one page of 120");
    faults.mend();
    store.request_retry(Amounts::NAME, "a", &act()).await.expect("parked");
    for (crash, amount) in [1, 50, 100, 101, 120].into_iter().enumerate() {
        // The fold of this amount drops the worker, which ends when it waits next: for the commit or within it.
        let task: Arc<Mutex<Option<JoinHandle<_>>>> = Arc::default();
        let seen = task.clone();
        let watch = Watch(Box::new(move |folded| {
            if folded == amount
                && let Some(task) = &*seen.lock().expect("no panic under it")
            {
                task.abort();
            }
        }));
        let projection = Amounts { faults: faults.clone(), watch: Some(Arc::new(watch)), ..Amounts::default() };
        let running = spawn(projector(projection, store, FailurePolicy::park()), &CancellationToken::new());
        *task.lock().expect("no panic under it") = Some(running);
        deposit(store, &[("a", 1_000 + crash as u64)]).await;
        let is_over = async || task.lock().expect("no panic under it").as_ref().is_some_and(JoinHandle::is_finished);
        let handled = async || is_over().await || store.parked_keys(Amounts::NAME).await.expect("read").is_empty();
        eventually("it was dropped, or had nothing to do", async || handled().await.then_some(())).await;
        if let Some(task) = task.lock().expect("no panic under it").take() {
            task.abort();
        }
    }
    let last = deposit(store, &[("a", 2_000)]).await;
    let shutdown = CancellationToken::new();
    let last_one = Amounts { faults, ..Amounts::default() };
    let running = spawn(projector(last_one, store, FailurePolicy::park()), &shutdown);
    reaches::<Amounts>(store, last).await;
    no_letters(store, Amounts::NAME).await;
    let all: Vec<_> = (1..=120).chain(1_000..1_005).chain([2_000]).collect();
    assert_eq!(documents::<Amounts>(store).await, expected(&[("a", &all), ("all", &all)]));
    stops(running, &shutdown).await;
}
