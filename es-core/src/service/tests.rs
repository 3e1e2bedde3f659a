//! The service on a store in memory, with a relay that each test scripts.

mod clock;
mod failures;
mod first_build;
mod inline;
mod rebuild;
mod shutdown;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Engine, PartError, PartKind, PartState, Parts, RebuildError, Relay, Resources, Service, ServiceBuilder,
    ShutdownError, StartError, Thresholds, Unsettled,
};
use crate::{
    backoff::Backoff,
    event::{EventData, NewEvent, Recorded},
    memory::MemoryStore,
    react::policy::{Policy, PolicyError, reaction},
    read::{
        engine_error::{EngineError, Location},
        query::QueryError,
        read_model::Leases,
        source::{EventFeed, EventSource, LogSource, SourceError, Subscription},
        worker_state::StateReport,
    },
    stream::{Expected, Position, StreamId},
    testing::{
        account::{Account, AccountCommand, AccountEvent, Histories, Ledger},
        recorded,
    },
    write::{append::Append, store::EventStore},
};

/// How long something may take in a test: only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one run of [`Scripted`] does.
#[derive(Debug, Clone, Copy)]
enum Act {
    FailForNow,
    FailForGood,
    Panic,
    /// Returns before the shutdown.
    Return,
    /// Runs until the shutdown.
    Work,
    /// Fails for now, at the shutdown.
    FailAtTheShutdown,
    /// Does not notice the shutdown.
    Hang,
}

/// A relay whose runs do what a test says, one after the other.
#[derive(Debug, Clone, Default)]
struct Scripted {
    acts: Arc<Mutex<VecDeque<Act>>>,
    /// How many runs have begun, and how many have ended at the shutdown.
    runs: watch::Sender<(usize, usize)>,
    report: StateReport,
}

impl Scripted {
    fn of(acts: impl IntoIterator<Item = Act>) -> Self {
        Self { acts: Arc::new(Mutex::new(acts.into_iter().collect())), ..Self::default() }
    }

    async fn runs(&self, wanted: impl Fn((usize, usize)) -> bool) {
        let mut runs = self.runs.subscribe();
        let reached = tokio::time::timeout(PATIENCE, runs.wait_for(|now| wanted(*now))).await;
        reached.expect("in time").expect("the sender lives");
    }
}

#[async_trait]
impl Engine for Scripted {
    async fn run(&self, shutdown: CancellationToken) -> Result<(), PartError> {
        self.runs.send_modify(|(begun, _)| *begun += 1);
        let act = self.acts.lock().expect("no panic under the lock").pop_front().expect("no further run is expected");
        match act {
            Act::FailForNow => return Err(PartError::Transient("not now".into())),
            Act::FailForGood => return Err(PartError::Permanent("not at all".into())),
            Act::Panic => panic!("as the test wants it"),
            Act::Return => return Ok(()),
            Act::Work => shutdown.cancelled().await,
            Act::FailAtTheShutdown => {
                shutdown.cancelled().await;
                return Err(PartError::Transient("the connection was lost".into()));
            }
            Act::Hang => std::future::pending().await,
        }
        self.runs.send_modify(|(_, ended)| *ended += 1);
        Ok(())
    }

    fn report(&self) -> &StateReport {
        &self.report
    }
}

/// Copies nothing: readers follow the log.
#[derive(Debug)]
struct Nowhere(Scripted, MemoryStore);

impl Relay for Nowhere {
    fn engine(&self, _: &str, _: Arc<dyn EventStore>) -> Box<dyn Engine> {
        Box::new(self.0.clone())
    }

    fn source(&self, _: &str, _: Arc<dyn EventStore>) -> Arc<dyn EventSource> {
        Arc::new(LogSource::new(self.1.clone()))
    }
}

fn builder(store: &MemoryStore) -> ServiceBuilder {
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(2));
    let thresholds = Thresholds { first_build: Duration::ZERO, ..Thresholds::default() };
    Service::builder("accounts", store.clone()).aggregate::<Account>().backoff(backoff).thresholds(thresholds)
}

async fn with_relay(acts: &[Act]) -> (Service, Scripted) {
    let (store, relay) = (MemoryStore::new(), Scripted::of(acts.iter().copied()));
    let service = builder(&store).projection(Histories).relay(Nowhere(relay.clone(), store.clone()));
    (service.start().await.expect("it starts"), relay)
}

async fn deposit(service: &Service, amount: u64) -> Position {
    let executed = service.repository::<Account>().execute("a", AccountCommand::Deposit(amount)).await;
    executed.expect("executed").position.expect("it has an event")
}

/// Returns when the part `name` has ended for good.
async fn over(service: &Service, name: &str) {
    let part = service.parts().iter().find(|part| part.name == name).expect("it is registered");
    tokio::time::timeout(PATIENCE, part.over()).await.expect("in time");
}

async fn state(service: &Service, name: &str) -> PartState {
    service.status().await.part(name).expect("it is registered").state.clone()
}

async fn ends(service: &Service) {
    service.shutdown(PATIENCE).await.expect("in time and in good order");
}

#[tokio::test]
async fn a_part_that_ends_for_a_transient_reason_starts_again() {
    let (service, relay) = with_relay(&[Act::FailForNow, Act::Return, Act::FailForNow, Act::Work]).await;
    relay.runs(|(begun, _)| begun == 4).await;
    let status = service.status().await;
    let part = status.part("relay").expect("it is registered");
    assert_eq!((&part.state, part.restarts, part.last_error.as_deref()), (&PartState::Running, 3, Some("not now")));
    assert!(part.last_error_at.is_some());
    assert!(service.health().await.ready);
    ends(&service).await;
    assert_eq!(*relay.runs.borrow(), (4, 1));
    assert_eq!(state(&service, "relay").await, PartState::Ended);
}

#[tokio::test]
async fn between_two_attempts_a_part_says_why_and_the_shutdown_does_not_wait_for_the_pause() {
    let (store, relay) = (MemoryStore::new(), Scripted::of([Act::FailForNow]));
    let hours = Backoff::new(Duration::from_hours(10), Duration::from_hours(10));
    let service = builder(&store).backoff(hours).relay(Nowhere(relay.clone(), store.clone()));
    let service = service.start().await.expect("it starts");
    let begun = Instant::now();
    while state(&service, "relay").await != (PartState::Restarting { reason: "not now".into() }) {
        assert!(begun.elapsed() < PATIENCE, "{service:?}");
        tokio::task::yield_now().await;
    }
    // With the pauses that a service has by itself it would have begun again by now.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(*relay.runs.borrow(), (1, 0));
    ends(&service).await;
    assert!(begun.elapsed() < PATIENCE);
}

#[tokio::test]
async fn a_part_that_ends_at_the_shutdown_has_not_failed() {
    for act in [Act::Work, Act::FailAtTheShutdown] {
        let (service, relay) = with_relay(&[act]).await;
        relay.runs(|(begun, _)| begun == 1).await;
        ends(&service).await;
        let status = service.status().await;
        let part = status.part("relay").expect("it is registered");
        assert_eq!((&part.state, part.last_error.as_deref()), (&PartState::Ended, None), "{act:?}");
    }
}

#[tokio::test]
async fn a_service_ends_when_its_last_part_has_ended() {
    let (service, relay) = with_relay(&[Act::FailForGood]).await;
    over(&service, "relay").await;
    assert_eq!(*relay.runs.borrow(), (1, 0));
    let ended = service.ended();
    tokio::pin!(ended);
    tokio::select! {
        biased;
        () = &mut ended => panic!("the projector runs"),
        () = tokio::task::yield_now() => {}
    }
    ends(&service).await;
    ended.await;
}

/// Counts how often each reader opens it.
#[derive(Debug)]
struct Opened(LogSource, watch::Sender<BTreeMap<String, usize>>);

#[async_trait]
impl EventSource for Opened {
    async fn open(&self, subscription: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        self.1.send_modify(|times| *times.entry(subscription.reader.clone()).or_default() += 1);
        self.0.open(subscription).await
    }
}

#[tokio::test]
async fn r11_readers_that_stand_by_at_an_event_of_newer_code_say_so_and_try_again() {
    let (store, retry) = (MemoryStore::new(), Duration::from_millis(5));
    let opened = watch::Sender::default();
    let service = builder(&store)
        .source(Opened(LogSource::new(store.clone()), opened.clone()))
        .projection_with(Histories, move |projector| projector.standby(retry))
        .policy_with(|resources| Doubling(resources.repository()), move |runner| runner.standby(retry));
    let service = service.start().await.expect("it starts");
    let stream = StreamId::new("account", "b").expect("a valid name");
    let data = EventData { name: "account.frozen".into(), schema_version: 1, payload: "{}".into() };
    store.append(Append::new(stream, Expected::Any, vec![NewEvent::new(data)])).await.expect("written");
    let begun = Instant::now();
    while service.status().await.standing_by().len() < 2 {
        assert!(begun.elapsed() < PATIENCE, "{service:?}");
        tokio::task::yield_now().await;
    }
    for line in service.status().await.standing_by() {
        let (name, reason) = line.split_once(": standing by for 0 s: ").expect("the reason is told");
        assert!(["histories", "doubling"].contains(&name) && reason.contains("account.frozen"), "{line}");
    }
    assert!(service.health().await.ready, "as in any rolling deploy");
    let mut times = opened.subscribe();
    let tried = tokio::time::timeout(PATIENCE, times.wait_for(|times| times.values().all(|times| *times >= 10))).await;
    tried.expect("each tries again after a moment").expect("the sender lives");
    ends(&service).await;
}

#[tokio::test]
async fn a_process_runs_the_parts_of_a_kind() {
    let store = MemoryStore::new();
    let parts = Parts::Kind(PartKind::Projection);
    let service = builder(&store).projection(Histories).policy(|resources| Doubling(resources.repository()));
    let service = service.parts(parts).start().await.expect("it starts");
    assert_eq!(state(&service, "histories").await, PartState::Running);
    assert_eq!(state(&service, "doubling").await, PartState::Elsewhere);
    let kinds = [PartKind::Projection, PartKind::Policy, PartKind::Relay].map(|kind| kind.to_string());
    assert_eq!(kinds, ["projection", "policy", "relay"]);
    ends(&service).await;
}

/// What holds when the relay of `service` has ended for good with `reason`.
async fn assert_reported(service: &Service, relay: &Scripted, reason: &str) {
    over(service, "relay").await;
    let health = service.health().await;
    assert_eq!(health.reasons, [format!("stopped: relay: {reason}")]);
    assert!(health.live && !health.ready);
    assert_eq!(health.status.stopped(), [format!("relay: {reason}")]);
    assert_eq!(health.status.part("relay").expect("registered").last_error.as_deref(), Some(reason));
    // The other parts continue, and it is not started again.
    deposit(service, 1).await;
    service.settled(PATIENCE).await.expect("the projector continues");
    assert_eq!(*relay.runs.borrow(), (1, 0));
    ends(service).await;
    assert_eq!(state(service, "relay").await, PartState::Stopped { reason: reason.into() }, "the reason stays");
}

#[tokio::test]
async fn a_part_that_ends_for_good_is_reported_and_the_others_continue() {
    let (service, relay) = with_relay(&[Act::FailForGood]).await;
    assert_reported(&service, &relay, "not at all").await;
}

#[tokio::test]
async fn a_part_that_panics_is_reported_and_the_others_continue() {
    let (service, relay) = with_relay(&[Act::Panic]).await;
    assert_reported(&service, &relay, "it panicked").await;
}

#[tokio::test]
async fn r11_a_read_model_that_stops_before_an_event_is_reported_and_the_others_continue() {
    let store = MemoryStore::new();
    let poisoned = Ledger::<1> { poison: Some(666) };
    let service = builder(&store).projection(poisoned).projection(Histories).start().await.expect("it starts");
    deposit(&service, 1).await;
    service.settled(PATIENCE).await.expect("it settles");
    deposit(&service, 666).await;
    over(&service, "ledger").await;
    let health = service.health().await;
    assert!(!health.ready && health.reasons[0].starts_with("stopped: ledger: account-a@2 at position 2"), "{health:?}");
    let model = service.read_model::<Histories>();
    model.wait_for(crate::ReadToken(Position::new(2)), PATIENCE).await.expect("it continues");
    let late = service.settled(Duration::from_millis(50)).await;
    let Err(Unsettled::Late { readers, .. }) = late else { panic!("{late:?}") };
    assert!(readers.len() == 1 && readers[0].starts_with("ledger at 1 (it has stopped: account-a@2"), "{readers:?}");
    ends(&service).await;
}

#[tokio::test]
async fn a_process_runs_chosen_parts_and_knows_the_others() {
    let store = MemoryStore::new();
    let both = || builder(&store).projection(Histories).projection(Ledger::<1>::default());
    let http = both().parts(Parts::None).start().await.expect("it starts");
    deposit(&http, 1).await;
    http.ended().await;
    assert!(matches!(http.read_model::<Histories>().get("a").await, Err(QueryError::Building { .. })));

    let worker = both().parts(Parts::named(["histories"])).start().await.expect("it starts");
    let model = http.read_model::<Histories>();
    model.wait_for(crate::ReadToken(Position::new(1)), PATIENCE).await.expect("the other process keeps it");
    let status = http.status().await;
    let seen: Vec<_> = status.parts.iter().map(|part| (&*part.name, &part.state, part.lag)).collect();
    let elsewhere = &PartState::Elsewhere;
    assert_eq!(seen, [("histories", elsewhere, Some(0)), ("ledger", elsewhere, Some(1))]);
    assert_eq!(state(&worker, "ledger").await, PartState::Elsewhere);
    assert_eq!(state(&worker, "histories").await, PartState::Running);
    assert!(http.health().await.ready && worker.health().await.ready);

    // A read model can be rebuilt in any process.
    let token = CancellationToken::new;
    let rebuilt = http.rebuild::<Ledger<1>>(http.log(), token()).await.expect("rebuilt").expect("not interrupted");
    assert_eq!((&*rebuilt.reader.name, store.reached("ledger").await.expect("asked")), ("ledger", Position::new(1)));
    let unknown = http.rebuild_named("ledgers", http.source(), token()).await;
    let unknown = unknown.expect_err("there is no such read model");
    assert!(!unknown.is_transient());
    assert!(matches!(unknown, RebuildError::Unknown { ref known, .. } if *known == ["histories", "ledger"]));
    ends(&worker).await;
    ends(&http).await;
}

#[tokio::test]
async fn a_service_whose_names_are_invalid_unknown_or_not_unique_does_not_start() {
    let store = MemoryStore::new();
    let twice = builder(&store).projection(Histories).projection(Histories).start().await;
    assert!(matches!(twice, Err(StartError::Duplicate { name: "histories" })), "{twice:?}");
    let twice = builder(&store).aggregate::<Account>().start().await;
    assert!(matches!(twice, Err(StartError::DuplicateAggregate { category: "account" })), "{twice:?}");
    let twice = builder(&store).projection(Histories).live(Histories).live(Histories).start().await;
    assert!(matches!(twice, Err(StartError::DuplicateLive { name: "histories" })), "{twice:?}");
    let unknown = builder(&store).projection(Histories).parts(Parts::named(["history"])).start().await;
    assert_eq!(
        unknown.expect_err("it is not registered").to_string(),
        r#"the service has no part "history"; it has ["histories"]"#
    );
    let unnamed = Service::builder("My Service", store).start().await;
    assert!(matches!(unnamed, Err(StartError::Name(_))), "{unnamed:?}");
}

#[tokio::test]
async fn a_lag_beyond_its_limit_is_a_reason_not_to_be_ready() {
    let store = MemoryStore::new();
    let stuck = || Scripted::of([Act::Work]);
    let thresholds = Thresholds { lag_events: Some(2), first_build: Duration::ZERO, ..Thresholds::default() };
    // The source delivers nothing.
    let service = builder(&store).projection(Histories).source(Refusing::for_ever()).thresholds(thresholds);
    let service = service.relay(Nowhere(stuck(), store.clone())).start().await.expect("it starts");
    for (amount, ready) in [(1, true), (2, true), (3, false)] {
        deposit(&service, amount).await;
        let health = service.health().await;
        assert_eq!((health.ready, health.status.head), (ready, Some(Position::new(amount))), "{health:?}");
        assert_eq!(health.status.part("histories").expect("registered").lag, Some(amount));
    }
    assert_eq!(service.health().await.reasons, ["lag: histories lags by 3 events (limit: 2)"]);
    ends(&service).await;
}

/// Cannot be opened for the first times.
#[derive(Debug)]
struct Refusing(LogSource, Mutex<u32>);

impl Refusing {
    fn for_ever() -> Self {
        Self(LogSource::new(MemoryStore::new()), Mutex::new(u32::MAX))
    }
}

#[async_trait]
impl EventSource for Refusing {
    async fn open(&self, subscription: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        {
            let mut times = self.1.lock().expect("no panic under the lock");
            if *times > 0 {
                *times -= 1;
                return Err(SourceError::Unavailable("not there yet".into()));
            }
        }
        self.0.open(subscription).await
    }
}

#[tokio::test]
async fn a_failure_that_an_engine_waits_out_is_told() {
    let store = MemoryStore::new();
    let source = Refusing(LogSource::new(store.clone()), Mutex::new(2));
    let service = builder(&store).projection(Histories).source(source).start().await.expect("it starts");
    deposit(&service, 1).await;
    service.settled(PATIENCE).await.expect("it is waited out");
    let status = service.status().await;
    let part = status.part("histories").expect("it is registered");
    assert_eq!((&part.state, part.restarts), (&PartState::Running, 0));
    assert!(part.last_error.as_deref().is_some_and(|error| error.ends_with("not there yet")), "{part:?}");
    ends(&service).await;
}

/// A source whose code panics.
#[derive(Debug)]
struct Broken;

#[async_trait]
impl EventSource for Broken {
    async fn open(&self, _: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        panic!("as the test wants it");
    }
}

#[tokio::test]
async fn an_engine_that_panics_ends_alone() {
    let (store, relay) = (MemoryStore::new(), Scripted::of([Act::Work]));
    let service = builder(&store).projection(Histories).source(Broken).relay(Nowhere(relay.clone(), store.clone()));
    let service = service.start().await.expect("it starts");
    over(&service, "histories").await;
    assert_eq!(service.status().await.stopped(), ["histories: it panicked"]);
    assert_eq!(state(&service, "relay").await, PartState::Running);
    ends(&service).await;
    assert_eq!(relay.runs.borrow().1, 1);
}

/// Doubles the first deposit on each account.
struct Doubling(crate::Repository<Account>);

#[async_trait]
impl Policy for Doubling {
    const NAME: &'static str = "doubling";
    type Event = AccountEvent;

    async fn react(&self, event: &Recorded<AccountEvent>) -> Result<(), PolicyError> {
        if let (AccountEvent::Deposited { amount }, 1) = (&event.data, event.version.get()) {
            let context = reaction(event, Self::NAME, "deposit")?;
            self.0.execute_with(event.stream.id(), AccountCommand::Deposit(*amount), context).await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_policy_is_made_from_the_repositories_of_the_service() {
    let store = MemoryStore::new();
    let policy = |resources: &Resources| {
        assert_eq!(resources.name(), "accounts");
        Doubling(resources.repository())
    };
    let service = builder(&store).policy(policy).projection(Histories).start().await.expect("it starts");
    assert_eq!(service.name(), "accounts");
    deposit(&service, 5).await;
    service.settled(PATIENCE).await.expect("it settles");
    assert_eq!(service.repository::<Account>().load("a").await.expect("loaded").state.balance, 10);
    assert_eq!(service.read_model::<Histories>().get("a").await.expect("it serves"), Some(vec![1, 2]));
    assert_eq!(service.categories(), ["account"]);
    ends(&service).await;
}

#[tokio::test]
#[should_panic(expected = "register it with `.aggregate::<…>()`")]
async fn a_repository_of_an_aggregate_that_was_not_registered_is_a_fault_of_the_program() {
    let service = Service::builder("accounts", MemoryStore::new()).start().await.expect("it starts");
    service.repository::<Account>();
}

#[test]
fn a_part_that_has_stopped_at_an_event_says_so() {
    let events = recorded([("a", AccountEvent::Deposited { amount: 1 })]);
    let event = Location::of(&events[0]);
    assert!(PartError::from(EngineError::Panicked { event }).is_of_event());
    assert!(!PartError::from(EngineError::UniqueInShards).is_of_event());
    assert!(!PartError::Panicked.is_of_event());
}
