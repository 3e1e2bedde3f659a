//! What readers do when they cannot handle an event: stop, retry, park; and what operators do then.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    engines_project::{PATIENCE, Running, Store, read_model, spawn},
    event_store,
};
use es_core::{
    Act, Append, Backoff, DeadLetter, EngineError, EventOrder, Expected, FailurePolicy, FoldResult, Keys, LetterPage,
    LogSource, Policy, PolicyError, PolicyRunner, Position, Projection, Projector, ReadToken, Recorded, Repository,
    StreamId, WorkerState,
    testing::account::{Account, AccountCommand, AccountEvent},
};

/// What the code cannot handle. Clones share it, so a test mends it while the engine runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults(pub(super) Arc<Mutex<HashMap<u64, Fault>>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Refuse,
    Panic,
    /// Longer than the time limit of the tests.
    Slow,
}

/// A fold of a test may take this long.
pub(super) const LIMIT: Duration = Duration::from_millis(250);

impl Faults {
    pub(super) fn of(faults: impl IntoIterator<Item = (u64, Fault)>) -> Self {
        Self(Arc::new(Mutex::new(faults.into_iter().collect())))
    }

    pub(super) fn mend(&self) {
        self.0.lock().expect("no panic under it").clear();
    }

    pub(super) fn meet(&self, amount: u64) -> Result<(), &'static str> {
        let fault = self.0.lock().expect("no panic under it").get(&amount).copied();
        match fault {
            // Some stores cannot keep such a character in a text.
            Some(Fault::Refuse) => Err("as the test wants it: \0"),
            Some(Fault::Panic) => panic!("as the test wants it"),
            Some(Fault::Slow) => {
                std::thread::sleep(LIMIT * 2);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

pub(super) fn amount_of(event: &Recorded<AccountEvent>) -> u64 {
    let (AccountEvent::Deposited { amount } | AccountEvent::Withdrawn { amount }) = event.data;
    amount
}

/// Deletes the document of its account.
pub(super) const CLOSES: u64 = 999;

/// The amounts of each account, and of all of them. Only the documents of accounts have faults.
#[derive(Debug, Clone, Default)]
pub(super) struct Amounts {
    pub(super) faults: Faults,
    pub(super) folds: Arc<AtomicU64>,
    /// Called with each amount that is folded into an account.
    pub(super) watch: Option<Arc<Watch>>,
}

pub(super) struct Watch(pub(super) Box<dyn Fn(u64) + Send + Sync>);

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

impl Projection for Amounts {
    const NAME: &'static str = "amounts";
    type Event = AccountEvent;
    type Document = Vec<u64>;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::many([event.stream.id(), "all"])
    }

    fn fold(&self, amounts: &mut Option<Vec<u64>>, event: &Recorded<AccountEvent>) -> FoldResult {
        amounts.get_or_insert_default().push(amount_of(event));
        Ok(())
    }

    fn fold_keyed(&self, key: &str, amounts: &mut Option<Vec<u64>>, event: &Recorded<AccountEvent>) -> FoldResult {
        if key != "all" {
            self.folds.fetch_add(1, Ordering::Relaxed);
            if let Some(watch) = &self.watch {
                (watch.0)(amount_of(event));
            }
            self.faults.meet(amount_of(event))?;
            if amount_of(event) == CLOSES {
                *amounts = None;
                return Ok(());
            }
        }
        self.fold(amounts, event)
    }
}

/// The same in per-stream order.
#[derive(Debug, Clone, Default)]
pub(super) struct OfStream(pub(super) Faults);

impl Projection for OfStream {
    const NAME: &'static str = "of-stream";
    const ORDER: EventOrder = EventOrder::PerStream;
    type Event = AccountEvent;
    type Document = Vec<u64>;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, amounts: &mut Option<Vec<u64>>, event: &Recorded<AccountEvent>) -> FoldResult {
        self.0.meet(amount_of(event))?;
        amounts.get_or_insert_default().push(amount_of(event));
        Ok(())
    }
}

pub(super) fn act() -> Act {
    Act::new("ada", "ticket 7").expect("valid")
}

pub(super) fn projector<P: Projection>(projection: P, store: &impl Store, policy: FailurePolicy) -> Projector<P> {
    // All events of a test in one batch.
    let source = LogSource::new(store.clone());
    Projector::new(projection, source, store.clone()).lease(Duration::from_millis(300)).on_failure(policy)
}

/// Builds the read model of an empty log, so that it serves during the test.
pub(super) async fn begin<P: Projection>(projection: P, store: &impl Store) {
    let built = projector(projection, store, FailurePolicy::stop()).rebuild(CancellationToken::new()).await;
    built.expect("rebuilt").expect("it was not interrupted");
}

pub(super) async fn deposit(store: &impl Store, deposits: &[(&str, u64)]) -> Position {
    let accounts = Repository::<Account>::new(store.clone());
    let mut last = Position::ZERO;
    for (id, amount) in deposits {
        last = accounts.execute(id, AccountCommand::Deposit(*amount)).await.expect("executed").token.0;
    }
    last
}

/// Deposits that cannot be decoded.
pub(super) async fn unreadable(store: &impl Store, id: &str) -> Position {
    let mut event = event_store::event(r#"{"amount":"much"}"#);
    event.data.name = "account.deposited".into();
    let stream = StreamId::new("account", id).expect("a valid name");
    store.append(Append::new(stream, Expected::Any, vec![event])).await.expect("appended").position
}

pub(super) async fn reaches<P: Projection>(store: &impl Store, position: Position) {
    read_model::<P>(store).wait_for(ReadToken(position), PATIENCE).await.expect("it catches up");
}

pub(super) async fn documents<P: Projection<Document = Vec<u64>>>(store: &impl Store) -> BTreeMap<String, Vec<u64>> {
    let page = read_model::<P>(store).scan(es_core::KeyRange::default(), 100).await.expect("a scan");
    page.documents.into_iter().collect()
}

pub(super) fn expected(documents: &[(&str, &[u64])]) -> BTreeMap<String, Vec<u64>> {
    documents.iter().map(|(key, amounts)| ((*key).to_owned(), amounts.to_vec())).collect()
}

pub(super) async fn letters(store: &impl Store, reader: &str) -> Vec<DeadLetter> {
    store.dead_letters(reader, &LetterPage::first(100)).await.expect("read")
}

pub(super) async fn eventually<T>(what: &str, mut holds: impl AsyncFnMut() -> Option<T>) -> T {
    let patience = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = holds().await {
            return found;
        }
        assert!(Instant::now() < patience, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(super) async fn no_letters(store: &impl Store, reader: &str) {
    eventually("no key is parked", async || store.parked_keys(reader).await.expect("read").is_empty().then_some(()))
        .await;
}

pub(super) async fn stops(running: Running, shutdown: &CancellationToken) {
    shutdown.cancel();
    running.await.expect("no panic").expect("it stops in order");
}

/// R19: an error, a panic and a fold that takes too long hold up their own keys. The event is still folded into its other
/// documents.
pub async fn r19_a_failing_event_holds_up_its_key_and_nothing_else(store: &impl Store) {
    let faults = Faults::of([(2, Fault::Refuse), (12, Fault::Panic), (22, Fault::Slow)]);
    let projection = Amounts { faults: faults.clone(), ..Amounts::default() };
    begin(projection.clone(), store).await;
    let deposits = [
        ("a", 1),
        ("b", 11),
        ("a", 2),
        ("c", 21),
        ("b", 12),
        ("d", 31),
        ("c", 22),
        ("a", 3),
        ("b", 13),
        ("c", 23),
        ("d", 32),
    ];
    let last = deposit(store, &deposits).await;
    let shutdown = CancellationToken::new();
    let running = spawn(projector(projection, store, FailurePolicy::park()).time_limit(LIMIT), &shutdown);
    reaches::<Amounts>(store, last).await;
    let all = deposits.map(|(_, amount)| amount);
    let held_up = expected(&[("a", &[1]), ("all", &all), ("b", &[11]), ("c", &[21]), ("d", &[31, 32])]);
    assert_eq!(documents::<Amounts>(store).await, held_up);
    let parked: Vec<_> = letters(store, Amounts::NAME).await;
    let places: Vec<_> =
        parked.iter().map(|letter| (&*letter.key, letter.event.position.get(), letter.attempts)).collect();
    assert_eq!(places, [("a", 3, 1), ("a", 8, 0), ("b", 5, 1), ("b", 9, 0), ("c", 7, 1), ("c", 10, 0)]);
    let causes: Vec<_> = parked.iter().filter_map(|letter| letter.cause.as_deref()).collect();
    for (cause, part) in causes.iter().zip(["as the test wants it", "panicked", "time limit"]) {
        assert!(cause.contains(part), "{causes:?}");
    }
    // Mended, the letters are handled in order.
    faults.mend();
    for key in ["a", "b", "c"] {
        store.request_retry(Amounts::NAME, key, &act()).await.expect("parked");
    }
    no_letters(store, Amounts::NAME).await;
    let all: Vec<_> = deposits.iter().map(|(_, amount)| *amount).collect();
    let whole =
        expected(&[("a", &[1, 2, 3]), ("all", &all), ("b", &[11, 12, 13]), ("c", &[21, 22, 23]), ("d", &[31, 32])]);
    assert_eq!(documents::<Amounts>(store).await, whole);
    let last = deposit(store, &[("a", 4), ("b", 14)]).await;
    reaches::<Amounts>(store, last).await;
    assert!(letters(store, Amounts::NAME).await.is_empty(), "the keys continue");
    stops(running, &shutdown).await;
}

/// R19: so many attempts, and then the event is parked.
pub async fn r19_an_event_is_tried_again_before_it_is_parked(store: &impl Store) {
    let projection = Amounts { faults: Faults::of([(2, Fault::Refuse)]), ..Amounts::default() };
    begin(projection.clone(), store).await;
    let last = deposit(store, &[("a", 1), ("a", 2), ("b", 3)]).await;
    let backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(20));
    let (shutdown, folds) = (CancellationToken::new(), projection.folds.clone());
    let running = spawn(projector(projection, store, FailurePolicy::retry(backoff, 3).then_park()), &shutdown);
    reaches::<Amounts>(store, last).await;
    let parked = letters(store, Amounts::NAME).await;
    assert_eq!((parked.len(), parked[0].attempts), (1, 4));
    stops(running, &shutdown).await;
    // 1 is folded twice, since a part with a failing event is folded again without it; 2 five times, of which the last one finds
    // the key; and 3 once.
    assert_eq!(folds.load(Ordering::Relaxed), 2 + 5 + 1);
    let error = projector(
        Amounts { faults: Faults::of([(4, Fault::Refuse)]), ..Amounts::default() },
        store,
        FailurePolicy::retry(backoff, 3).then_stop(),
    );
    deposit(store, &[("b", 4)]).await;
    let error = error.run(CancellationToken::new()).await.expect_err("it stops");
    assert!(matches!(error, EngineError::Unfoldable { .. }), "{error:?}");
}

/// R19: what is parked of an event that cannot be decoded is its stream, where documents are of one stream.
pub async fn r19_an_unreadable_event_parks_its_stream(store: &impl Store) {
    begin(OfStream::default(), store).await;
    deposit(store, &[("a", 1), ("b", 2)]).await;
    let position = unreadable(store, "a").await;
    let last = deposit(store, &[("b", 4)]).await;
    unreadable(store, "a").await;
    let shutdown = CancellationToken::new();
    let running = spawn(projector(OfStream::default(), store, FailurePolicy::park()), &shutdown);
    reaches::<OfStream>(store, last).await;
    eventually("two letters", async || (letters(store, OfStream::NAME).await.len() == 2).then_some(())).await;
    assert_eq!(documents::<OfStream>(store).await, expected(&[("a", &[1]), ("b", &[2, 4])]));
    let payload = Bytes::from_static(br#"{"amount":3}"#);
    store.edit_letter(OfStream::NAME, "a", position, payload, &act()).await.expect("edited");
    store.discard_letters(OfStream::NAME, "a", Some(Position::new(5)), &act()).await.expect("discarded");
    store.request_retry(OfStream::NAME, "a", &act()).await.expect("parked");
    no_letters(store, OfStream::NAME).await;
    assert_eq!(documents::<OfStream>(store).await["a"], [1, 3]);
    stops(running, &shutdown).await;
}

/// R11, R19, R22: where its keys are not known the reader stops, and an operator may skip the event.
pub async fn r19_an_unreadable_event_in_log_order_stops_until_it_is_skipped(store: &impl Store) {
    begin(Amounts::default(), store).await;
    deposit(store, &[("a", 1)]).await;
    let position = unreadable(store, "a").await;
    let last = deposit(store, &[("b", 3)]).await;
    let parking = projector(Amounts::default(), store, FailurePolicy::park());
    match parking.run(CancellationToken::new()).await.expect_err("it stops") {
        EngineError::Unparkable { event, reason } => {
            assert_eq!(event.position, position);
            assert!(matches!(*reason, EngineError::Decode(_)), "{reason:?}");
        }
        other => panic!("expected that it cannot be parked, got {other:?}"),
    }
    assert!(letters(store, Amounts::NAME).await.is_empty());
    let stopped = store.stops(Amounts::NAME).await.expect("read").remove(0);
    assert_eq!(stopped.position, position);
    store.skip(Amounts::NAME, &stopped.shard, position, stopped.event_id, &act()).await.expect("skipped");
    let shutdown = CancellationToken::new();
    let running = spawn(parking, &shutdown);
    reaches::<Amounts>(store, last).await;
    assert_eq!(documents::<Amounts>(store).await, expected(&[("a", &[1]), ("all", &[1, 3]), ("b", &[3])]));
    stops(running, &shutdown).await;
}

/// R22: a pause is seen soon, survives restarts, and ends with the resumption.
pub async fn r22_a_paused_reader_waits_until_it_is_resumed(store: &impl Store) {
    begin(Amounts::default(), store).await;
    let first = deposit(store, &[("a", 1)]).await;
    for restart in 0..2_u64 {
        let reader = projector(Amounts::default(), store, FailurePolicy::stop());
        let (shutdown, mut state) = (CancellationToken::new(), reader.state());
        let running = spawn(reader, &shutdown);
        if restart == 0 {
            reaches::<Amounts>(store, first).await;
            store.pause(Amounts::NAME, &act()).await.expect("known");
        }
        let is_paused = |state: &WorkerState| matches!(state, WorkerState::Paused(pause) if pause.actor == "ada");
        tokio::time::timeout(PATIENCE, state.wait_for(is_paused)).await.expect("soon").expect("it runs");
        let last = deposit(store, &[("a", 2)]).await;
        let waited = read_model::<Amounts>(store).wait_for(ReadToken(last), Duration::from_millis(300)).await;
        assert!(waited.is_err(), "it handles nothing");
        if restart == 1 {
            store.resume(Amounts::NAME, &act()).await.expect("paused");
            reaches::<Amounts>(store, last).await;
            let working = state.wait_for(|state| *state == WorkerState::Working);
            tokio::time::timeout(PATIENCE, working).await.expect("soon").expect("it runs");
        }
        stops(running, &shutdown).await;
    }
    assert_eq!(documents::<Amounts>(store).await["a"], [1, 2, 2]);
}

/// Records the amounts of each account to which it reacts.
#[derive(Debug, Clone, Default)]
struct Witness {
    faults: Faults,
    seen: Arc<Mutex<BTreeMap<String, Vec<u64>>>>,
}

#[async_trait]
impl Policy for Witness {
    const NAME: &'static str = "witness";
    type Event = AccountEvent;

    async fn react(&self, event: &Recorded<AccountEvent>) -> Result<(), PolicyError> {
        if amount_of(event) == 22 && self.faults.meet(amount_of(event)).is_err() {
            // It is interrupted.
            std::future::pending::<()>().await;
        }
        self.faults.meet(amount_of(event)).map_err(|reason| PolicyError::Permanent(reason.into()))?;
        let id = event.stream.id().to_owned();
        self.seen.lock().expect("no panic under it").entry(id).or_default().push(amount_of(event));
        Ok(())
    }
}

/// R19: the key of a policy is a stream, also of an event that cannot be decoded.
pub async fn r19_a_failing_reaction_holds_up_its_stream_and_nothing_else(store: &impl Store) {
    let faults = Faults::of([(2, Fault::Refuse), (12, Fault::Panic), (22, Fault::Refuse)]);
    let policy = Witness { faults: faults.clone(), ..Witness::default() };
    deposit(store, &[("a", 1), ("b", 11), ("a", 2), ("c", 21), ("b", 12), ("e", 41), ("c", 22)]).await;
    unreadable(store, "e").await;
    deposit(store, &[("a", 3), ("b", 13), ("c", 23), ("d", 31), ("d", 32)]).await;
    let (shutdown, seen) = (CancellationToken::new(), policy.seen.clone());
    let runner = PolicyRunner::new(policy, LogSource::new(store.clone()), store.clone())
        .lease(Duration::from_millis(300))
        .time_limit(LIMIT)
        .on_failure(FailurePolicy::park());
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { runner.run(shutdown).await }
    });
    eventually("it reacts to the others", async || {
        (letters(store, Witness::NAME).await.len() == 7
            && seen.lock().expect("no panic under it").get("d").is_some_and(|seen| seen.len() == 2))
        .then_some(())
    })
    .await;
    let held_up = expected(&[("a", &[1]), ("b", &[11]), ("c", &[21]), ("d", &[31, 32]), ("e", &[41])]);
    assert_eq!(*seen.lock().expect("no panic under it"), held_up);
    let causes: Vec<_> = letters(store, Witness::NAME).await.into_iter().filter_map(|letter| letter.cause).collect();
    for (cause, part) in causes.iter().zip(["as the test wants it", "panicked", "time limit", "decode"]) {
        assert!(cause.contains(part), "{causes:?}");
    }
    faults.mend();
    let payload = Bytes::from_static(br#"{"amount":42}"#);
    store.edit_letter(Witness::NAME, "account-e", Position::new(8), payload, &act()).await.expect("edited");
    for key in ["account-a", "account-b", "account-c", "account-e"] {
        store.request_retry(Witness::NAME, key, &act()).await.expect("parked");
    }
    no_letters(store, Witness::NAME).await;
    let whole = [("a", &[1, 2, 3][..]), ("b", &[11, 12, 13]), ("c", &[21, 22, 23]), ("d", &[31, 32]), ("e", &[41, 42])];
    assert_eq!(*seen.lock().expect("no panic under it"), expected(&whole));
    shutdown.cancel();
    running.await.expect("no panic").expect("it stops in order");
}
