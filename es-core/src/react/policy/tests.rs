use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::{
    error::StoreMoved,
    memory::MemoryStore,
    read::{
        read_model::{Act, DeadLetters, Leases, Operations},
        scripted::Watched,
        source::LogSource,
    },
    testing::{
        account::{Account, AccountCommand, AccountEvent},
        recorded,
    },
    write::{
        execute::Repository,
        store::{AppendError, ReadError},
    },
};

/// Cannot react to deposits of 2 for now.
struct Patient;

#[async_trait]
impl Policy for Patient {
    const NAME: &'static str = "patient";
    type Event = AccountEvent;

    async fn react(&self, event: &Recorded<AccountEvent>) -> Result<(), PolicyError> {
        match event.data {
            AccountEvent::Deposited { amount: 2 } => Err(PolicyError::Transient("not now".into())),
            _ => Ok(()),
        }
    }
}

/// Seen to fail where it waited before it committed the earlier reactions: a crash would have repeated them.
#[tokio::test]
async fn r9_earlier_reactions_are_committed_before_one_is_retried() {
    let store = MemoryStore::new();
    let (reader, _) = store.ensure_reader("patient", "policy").await.expect("made");
    let runner = PolicyRunner::new(Patient, LogSource::new(store.clone()), store);
    let events = recorded([1, 1, 2, 1].map(|amount| ("a", AccountEvent::Deposited { amount })));
    let stop = CancellationToken::new();
    let handled = runner.handle(&reader, Events::of_log(&events), &stop).await;
    assert_eq!(handled.done, 2);
    assert!(handled.failure.is_some_and(|failure| failure.is_transient()));
    stop.cancel();
    let handled = runner.handle(&reader, Events::of_log(&events[2..]), &stop).await;
    assert_eq!((handled.done, handled.failure.is_none()), (0, true));
}

/// R11: what other lanes have done beyond the event is done again later, under its keys.
#[tokio::test]
async fn r11_a_policy_with_lanes_stops_before_the_first_event_that_it_cannot_react_to() {
    let store = MemoryStore::new();
    let (reader, _) = store.ensure_reader("patient", "policy").await.expect("made");
    let runner = PolicyRunner::new(Patient, LogSource::new(store.clone()), store).concurrency(4);
    let streams = [("a", 1), ("b", 1), ("c", 2), ("a", 1), ("b", 2), ("c", 1)];
    let events = recorded(streams.map(|(stream, amount)| (stream, AccountEvent::Deposited { amount })));
    let stop = CancellationToken::new();
    let handled = runner.handle(&reader, Events::of_log(&events), &stop).await;
    assert_eq!(handled.done, 2);
    let failure = handled.failure.expect("it cannot react");
    assert!(failure.to_string().contains("at position 3"), "{failure}");
    let handled = runner.handle(&reader, Events::of_log(&events[3..4]), &stop).await;
    assert_eq!((handled.done, handled.failure.is_none()), (1, true));
    stop.cancel();
    let handled = runner.handle(&reader, Events::of_log(&events), &stop).await;
    assert_eq!((handled.done, handled.failure.is_none()), (0, true));
}

/// It is no failure that counts for the policy of failures.
#[tokio::test]
async fn a_reaction_that_fails_for_now_is_tried_again_until_it_succeeds() {
    /// Succeeds with the fifth attempt.
    struct Fifth(AtomicU32);
    #[async_trait]
    impl Policy for Fifth {
        const NAME: &'static str = "fifth";
        type Event = AccountEvent;

        async fn react(&self, _: &Recorded<AccountEvent>) -> Result<(), PolicyError> {
            match self.0.fetch_add(1, Ordering::Relaxed) {
                4 => Ok(()),
                _ => Err(PolicyError::Transient("not now".into())),
            }
        }
    }

    let store = MemoryStore::new();
    let accounts = Repository::<Account>::new(store.clone());
    accounts.execute("a", AccountCommand::Deposit(1)).await.expect("executed");
    let runner = PolicyRunner::new(Fifth(AtomicU32::new(0)), LogSource::new(store.clone()), store.clone());
    let runner = runner.on_failure(FailurePolicy::park());
    let shutdown = CancellationToken::new();
    let handled = async {
        while store.reached("fifth").await.expect("read").get() != 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        shutdown.cancel();
    };
    let (ended, ()) = tokio::join!(runner.run(shutdown.clone()), handled);
    ended.expect("in good order");
    assert_eq!(runner.policy.0.load(Ordering::Relaxed), 5);
    assert!(store.parked_keys("fifth").await.expect("read").is_empty());
}

/// Seen to fail where a reaction was tried again within a part: the runner never looked.
#[tokio::test]
async fn r22_a_policy_that_cannot_react_for_now_is_paused() {
    let store = MemoryStore::new();
    let accounts = Repository::<Account>::new(store.clone());
    accounts.execute("a", AccountCommand::Deposit(2)).await.expect("executed");
    let runner = PolicyRunner::new(Patient, LogSource::new(store.clone()), store.clone());
    let (shutdown, mut state) = (CancellationToken::new(), runner.state());
    let paused = async {
        while runner.report.last_failure().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        store.pause("patient", &Act::new("ada", "ticket 7").expect("valid")).await.expect("known");
        let is_paused = |state: &WorkerState| matches!(state, WorkerState::Paused(_));
        let seen = tokio::time::timeout(Duration::from_secs(8), state.wait_for(is_paused)).await.is_ok();
        shutdown.cancel();
        seen
    };
    let (ended, seen) = tokio::join!(runner.run(shutdown.clone()), paused);
    ended.expect("in good order");
    assert!(seen);
}

#[tokio::test]
async fn a_reaction_that_fails_for_good_is_not_tried_again() {
    struct Strict;
    #[async_trait]
    impl Policy for Strict {
        const NAME: &'static str = "strict";
        type Event = AccountEvent;

        async fn react(&self, event: &Recorded<AccountEvent>) -> Result<(), PolicyError> {
            match event.data {
                AccountEvent::Deposited { amount: 2 } => Err(PolicyError::Permanent("not at all".into())),
                _ => Ok(()),
            }
        }
    }

    let store = MemoryStore::new();
    let (reader, _) = store.ensure_reader("strict", "policy").await.expect("made");
    let runner = PolicyRunner::new(Strict, LogSource::new(store.clone()), store);
    let events = recorded([1, 2].map(|amount| ("a", AccountEvent::Deposited { amount })));
    let handled = runner.handle(&reader, Events::of_log(&events), &CancellationToken::new()).await;
    assert_eq!(handled.done, 1);
    assert!(matches!(handled.failure, Some(EngineError::Reaction { transient: false, .. })), "{handled:?}");
}

#[tokio::test]
async fn a_policy_has_leases_of_the_length_that_was_set() {
    let (store, ttl) = (Watched::default(), Duration::from_hours(7));
    let runner = PolicyRunner::new(Patient, LogSource::new(store.memory.clone()), store.clone()).lease(ttl);
    let shutdown = CancellationToken::new();
    let acquired = async {
        while store.ttl().is_none() {
            tokio::task::yield_now().await;
        }
        shutdown.cancel();
    };
    let (ended, ()) = tokio::join!(runner.run(shutdown.clone()), acquired);
    ended.expect("in good order");
    assert_eq!(store.ttl(), Some(ttl));
}

#[test]
fn a_policy_tries_again_what_may_succeed_later_and_nothing_else() {
    type Error = ExecuteError<std::fmt::Error>;
    let lost = || AppendError::Store("the connection was lost".into());
    for transient in [Error::Contended { attempts: 3 }, lost().into(), AppendError::Closed.into()] {
        assert!(PolicyError::from(transient).is_transient());
    }
    let read = ReadError::Store("the connection was lost".into());
    assert!(PolicyError::from(DecideError::<std::fmt::Error>::from(read)).is_transient());
    let moved = AppendError::Store(StoreMoved("gone".into()).into());
    for permanent in [Error::Rejected(std::fmt::Error), AppendError::KeyReused.into(), moved.into()] {
        assert!(!PolicyError::from(permanent).is_transient());
    }
}

/// Seen to fail where the events after one that is parked were reacted to at once: the second deposit overtook the first.
#[tokio::test]
async fn r19_what_follows_an_event_that_is_given_up_waits_until_that_is_known() {
    struct Choosy;
    #[async_trait]
    impl Policy for Choosy {
        const NAME: &'static str = "choosy";
        type Event = AccountEvent;

        async fn react(&self, event: &Recorded<AccountEvent>) -> Result<(), PolicyError> {
            match event.data {
                AccountEvent::Deposited { amount: 1 } => Err(PolicyError::Permanent("not at all".into())),
                _ => Ok(()),
            }
        }
    }
    let store = MemoryStore::new();
    let (reader, _) = store.ensure_reader("choosy", "policy").await.expect("made");
    let runner = PolicyRunner::new(Choosy, LogSource::new(store.clone()), store);
    let events = recorded([1, 2].map(|amount| ("a", AccountEvent::Deposited { amount })));
    let mut batch = Events::of_log(&events);
    (batch.course.gives_up, batch.course.room) = (Some(events[0].position), 10);
    let handled = runner.handle(&reader, batch, &CancellationToken::new()).await;
    assert_eq!((handled.done, handled.letters.len(), handled.failure.is_none()), (1, 1, true));
    runner.failed(&EngineError::NotPerStream);
    assert!(runner.report.last_failure().is_some(), "operators are told");
}
