//! Projectors and policies at events that only newer code knows, on every store.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    engines_project::{PATIENCE, Running, Store, deposit, projector, read_model, spawn},
    event_store,
    standby::{Idle, RETRY, idle, until_standing_by, until_working},
};
use es_core::{
    Append, EngineError, EventData, Expected, FoldResult, Keys, LogSource, NewEvent, Policy, Position, Projection,
    ReadToken, Recorded, StreamId, WorkerState,
    backend::Takeover,
    testing::account::{Histories, Ledger, LedgerPage},
};

/// The events of accounts in a newer program.
#[derive(Debug, Clone, PartialEq, Eq, es_core::Event)]
#[event(category = "account")]
enum NewerEvent {
    #[event(name = "account.deposited")]
    Deposited { amount: u64 },
    #[event(name = "account.withdrawn")]
    Withdrawn { amount: u64 },
    #[event(name = "account.frozen")]
    Frozen {},
}

mod newer {
    //! The same projection as [`super::Ledger`], in a program that knows more events.

    use super::{FoldResult, Keys, LedgerPage, NewerEvent, Projection, Recorded};

    #[derive(Debug)]
    pub(super) struct Ledger;

    impl Projection for Ledger {
        const NAME: &'static str = super::Ledger::<1>::NAME;
        type Event = NewerEvent;
        type Document = LedgerPage;

        fn keys(&self, _: &Recorded<NewerEvent>) -> Keys {
            Keys::one("all")
        }

        fn fold(&self, page: &mut Option<LedgerPage>, event: &Recorded<NewerEvent>) -> FoldResult {
            page.get_or_insert_default().positions.push(event.position.get());
            Ok(())
        }
    }
}

pub(super) async fn append_of_newer_code(store: &impl Store, name: &str, schema_version: u32) -> Position {
    let data = EventData { name: name.into(), schema_version, payload: bytes::Bytes::from_static(b"{\"amount\":1}") };
    let event = NewEvent { data, ..event_store::event("{}") };
    let stream = StreamId::new("account", "a").expect("a valid id");
    store.append(Append::new(stream, Expected::Any, vec![event])).await.expect("appended").position
}

/// Whether the lease on the log's shard is free.
async fn is_free(store: &impl Store, name: &str) -> bool {
    let (reader, _) = store.ensure_reader(name, "it has begun").await.expect("asked");
    let (rival, ttl) = (Uuid::now_v7(), Duration::ZERO);
    let taken = store.acquire(&reader, &LogSource::shard(), rival, Takeover::WhenFree, ttl).await.expect("asked");
    taken.is_some()
}

/// R11: in a rolling deploy the new program has already written events.
pub async fn r11_workers_stand_by_at_an_event_that_only_newer_code_knows(store: &impl Store) {
    let shutdown = CancellationToken::new();
    let token = deposit(store, 1).await;
    let old = projector(Ledger::<1>::default(), store).standby(RETRY).lease(Duration::from_hours(1));
    let mut state = old.state();
    let old = spawn(old, &shutdown);
    let model = read_model::<Ledger>(store);
    model.wait_for(token, PATIENCE).await.expect("it catches up");
    let unknown = append_of_newer_code(store, "account.frozen", 1).await;
    let reason = until_standing_by(&mut state).await;
    assert!(reason.contains("account.frozen"), "{reason}");
    assert_eq!(model.reached().await.expect("it serves"), token.0, "the checkpoint never passes it");
    // It may be in the middle of a retry.
    while !is_free(store, Ledger::<1>::NAME).await {
        tokio::task::yield_now().await;
    }
    assert!(!old.is_finished());
    let new = spawn(projector(newer::Ledger, store), &shutdown);
    let newer = read_model::<newer::Ledger>(store);
    newer.wait_for(ReadToken(unknown), PATIENCE).await.expect("newer code continues");
    // The old program continues when there is no event left that it does not know.
    new.abort();
    until_working(&mut state).await;
    let beyond = append_of_newer_code(store, "account.deposited", 9).await;
    let reason = until_standing_by(&mut state).await;
    assert!(reason.contains("v9"), "{reason}");
    assert_eq!(model.reached().await.expect("it serves").next(), beyond);
    shutdown.cancel();
    old.await.expect("no panic").expect("it stops in order");
}

/// R11
pub async fn r11_a_policy_stands_by_at_an_event_that_only_newer_code_knows(store: &impl Store) {
    append_of_newer_code(store, "account.frozen", 1).await;
    let (runner, shutdown) = (idle(Idle, store), CancellationToken::new());
    let mut state = runner.state();
    let runner = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { runner.run(shutdown).await }
    });
    until_standing_by(&mut state).await;
    while !is_free(store, Idle::NAME).await {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.reached(Idle::NAME).await.expect("asked"), Position::ZERO);
    shutdown.cancel();
    runner.await.expect("no panic").expect("it stops in order");
}

/// The worker with the state `state` stops at the event at `position`; `run` is what it ends with.
async fn until_never_known(mut state: watch::Receiver<WorkerState>, run: Running, position: Position) {
    let reason = until_standing_by(&mut state).await;
    assert!(reason.contains("account.frozen"), "{reason}");
    let ended = tokio::time::timeout(PATIENCE, run).await.expect("it stops in time").expect("no panic");
    let Err(error @ EngineError::NeverKnown { .. }) = ended else { panic!("{ended:?}") };
    assert!(!error.is_transient());
    let text = error.to_string();
    for part in ["account.frozen v1", &format!("position {position} "), "deploy"] {
        assert!(text.contains(part), "{text}");
    }
    let stopped = state.borrow().to_string();
    assert!(stopped.starts_with("stopped: account.frozen v1"), "{stopped}");
}

/// R11: only a time limit tells an event that no program knows from a rolling deploy. (Seen to fail, by the test's own
/// timeout, without the limit.)
pub async fn r11_workers_stop_at_an_event_that_no_program_knows_in_time(store: &impl Store) {
    const LIMIT: Duration = Duration::from_millis(200);
    let shutdown = CancellationToken::new();
    deposit(store, 1).await;
    let unknown = append_of_newer_code(store, "account.frozen", 1).await;
    let patient = projector(Histories, store).standby(RETRY).standby_limit(Duration::MAX);
    let mut patient_state = patient.state();
    let patient = spawn(patient, &shutdown);
    let ledger = projector(Ledger::<1>::default(), store).standby(RETRY).standby_limit(LIMIT);
    until_never_known(ledger.state(), spawn(ledger, &shutdown), unknown).await;
    let idle = idle(Idle, store).standby_limit(LIMIT);
    let state = idle.state();
    let idle = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { idle.run(shutdown).await }
    });
    until_never_known(state, idle, unknown).await;
    until_standing_by(&mut patient_state).await;
    shutdown.cancel();
    patient.await.expect("no panic").expect("it stands by until the shutdown");
}
