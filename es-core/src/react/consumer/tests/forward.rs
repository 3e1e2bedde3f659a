//! Messages that cannot be handled, and that the source takes.

use std::{collections::VecDeque, sync::Arc};

use super::*;
use crate::{
    backoff::Backoff,
    read::source::{EventFeed, FailedEvent, Forwarded, SourceError, Subscription},
};

/// What was forwarded: position, class, attempts, and whether it is lasting.
type Kept = (u64, &'static str, u32, bool);

/// The log, and what was forwarded.
#[derive(Debug, Clone)]
struct Keeps {
    log: LogSource,
    kept: Arc<Mutex<Vec<Kept>>>,
    /// What it answers first.
    refusals: Arc<Mutex<VecDeque<SourceError>>>,
}

#[async_trait]
impl EventSource for Keeps {
    async fn open(&self, subscription: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        assert!(subscription.forwards, "the source is told before anything fails");
        self.log.open(&Subscription { forwards: false, ..subscription.clone() }).await
    }

    async fn forward(&self, failed: FailedEvent<'_>) -> Result<Forwarded, SourceError> {
        assert_eq!((failed.reader, &*failed.shard.to_string()), (Picky::NAME, "log"));
        if let Some(refusal) = self.refusals.lock().expect("no panic").pop_front() {
            return Err(refusal);
        }
        let FailedEvent { event, class, attempts, is_lasting, .. } = failed;
        self.kept.lock().expect("no panic").push((event.position.get(), class, attempts, is_lasting));
        Ok(if is_lasting { Forwarded::DeadLetter("dlq".into()) } else { Forwarded::Retry("retry".into()) })
    }
}

/// Refuses deposits of 2, and counts how often it was asked for each.
#[derive(Default)]
struct Picky(Arc<Mutex<Vec<u64>>>);

#[async_trait]
impl Consumer for Picky {
    const NAME: &'static str = "picky";
    type Message = AccountEvent;

    async fn handle(&self, message: &Recorded<AccountEvent>) -> Result<(), PolicyError> {
        let AccountEvent::Deposited { amount } = message.data else { return Ok(()) };
        self.0.lock().expect("no panic").push(amount);
        if amount == 2 { Err(PolicyError::Permanent("no".into())) } else { Ok(()) }
    }
}

struct Ran {
    outcome: Result<(), EngineError>,
    kept: Vec<Kept>,
    asked: Vec<u64>,
    reached: u64,
}

/// Runs a consumer of deposits of 1, 2 and 3, until it has passed them or ends.
async fn ran(
    others: &[(usize, &str)],
    refusals: impl IntoIterator<Item = SourceError>,
    settings: impl FnOnce(ConsumerRunner<Picky>) -> ConsumerRunner<Picky>,
) -> Ran {
    let (store, shutdown) = (MemoryStore::new(), CancellationToken::new());
    for RecordedEvent { stream, data, .. } in messages(others) {
        store.append(Append::new(stream, Expected::Any, vec![NewEvent::new(data)])).await.expect("appended");
    }
    let refusals = Arc::new(Mutex::new(refusals.into_iter().collect()));
    let source = Keeps { log: LogSource::new(store.clone()), kept: Arc::default(), refusals };
    let (kept, asked) = (source.kept.clone(), Arc::default());
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
    let runner = ConsumerRunner::new(Picky(Arc::clone(&asked)), source, store.clone());
    let runner = settings(runner.on_failure(FailurePolicy::retry(backoff, 2).then_forward()));
    let passed = async {
        while store.reached(Picky::NAME).await.expect("read") < Position::new(3) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        shutdown.cancel();
    };
    let running = runner.run(shutdown.clone());
    let outcome = tokio::select! {
        outcome = running => outcome,
        () = passed => Ok(()),
    };
    let reached = store.reached(Picky::NAME).await.expect("read").get();
    let (kept, asked) = (kept.lock().expect("no panic").clone(), asked.lock().expect("no panic").clone());
    Ran { outcome, kept, asked, reached }
}

/// Seen to fail where the event is parked, and where it is passed without the source.
#[tokio::test]
async fn r11_a_message_that_cannot_be_handled_is_forwarded_after_the_attempts_and_others_go_on() {
    let ran = ran(&[], [], |runner| runner).await;
    ran.outcome.expect("no error");
    assert_eq!(ran.kept, [(2, "refused", 3, false)]);
    assert_eq!(ran.asked, [1, 2, 2, 2, 3]);
}

/// Seen to fail where any failure to forward ends the worker: the next one counted the attempts from the first.
#[tokio::test]
async fn r11_a_message_is_passed_only_when_the_source_has_taken_it() {
    let away = || SourceError::Unavailable("the brokers are away".into());
    let taken = ran(&[], [away(), away()], |runner| runner).await;
    taken.outcome.expect("no error");
    assert_eq!((taken.kept, taken.asked), (vec![(2, "refused", 3, false)], vec![1, 2, 2, 2, 2, 2, 3]));

    let refused = SourceError::Refused { remedy: "create the topic".into(), source: "no".into() };
    let stopped = ran(&[], [refused], |runner| runner).await;
    let Err(EngineError::NotForwarded { event, failure, reason }) = stopped.outcome else { panic!("it stops") };
    assert_eq!((event.position.get(), failure.class(), stopped.reached), (2, "refused", 1));
    assert!(matches!(reason, SourceError::Refused { .. }), "{reason:?}");
}

/// No attempt makes them readable or known.
#[tokio::test]
async fn r11_what_no_attempt_can_change_is_forwarded_at_once() {
    let others = [(0, UNREADABLE), (2, "account.frozen")];
    let ran = ran(&others, [], |runner| {
        let once = FailurePolicy::retry(Backoff::new(Duration::ZERO, Duration::ZERO), 0).then_forward();
        runner.on_failure(once).unknown_types(UnknownTypes::Park)
    });
    let ran = ran.await;
    ran.outcome.expect("no error");
    assert_eq!(ran.kept, [(1, "unreadable", 1, true), (2, "refused", 1, false), (3, "unknown-type", 1, true)]);
    assert_eq!(ran.asked, [2]);
}

/// It waits for newer code first.
#[tokio::test]
async fn r11_a_type_that_no_program_knows_in_time_is_forwarded() {
    let ran = ran(&[(0, "account.frozen")], [], |runner| {
        runner.standby(Duration::from_millis(10)).standby_limit(Duration::from_millis(30))
    });
    let ran = ran.await;
    ran.outcome.expect("no error");
    assert_eq!(ran.kept, [(1, "unknown-type", 1, true), (2, "refused", 3, false)]);
}

/// Seen to fail without the question: the consumer ran until its first failure.
#[tokio::test]
async fn r11_a_reader_whose_source_cannot_forward_is_refused_when_it_starts() {
    let store = MemoryStore::new();
    let runner = ConsumerRunner::new(Picky::default(), LogSource::new(store.clone()), store);
    let refused = runner.on_failure(FailurePolicy::forward()).run(CancellationToken::new()).await;
    assert!(matches!(refused, Err(EngineError::Source(SourceError::CannotForward))), "{refused:?}");
}
