//! Sagas, on every store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use es_core::{
    Act, ActionContext, ActionError, Ask, Backoff, Correlation, Effect, EventSet, Input, Position, Recorded,
    Repository, Retry, Saga, Service, ServiceStore, Version,
    error::BoxError,
    react::saga::{Heard, Instance, NamedSaga, Overview, SagaCommand, Status},
    service::PartState,
    testing::account::{Account, AccountCommand, AccountEvent},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

const PATIENCE: Duration = Duration::from_secs(20);

/// Moves what is paid into `from-<id>` to `to-<id>`, and takes it back if that is refused.
struct Moving {
    accounts: Repository<Account>,
    /// How many attempts fail for now.
    fails: Arc<AtomicU32>,
    attempts: Arc<AtomicU32>,
    /// Is told when an amount was paid in; then the action does not end.
    hangs: Option<Arc<Notify>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Moved {
    amount: u64,
    reminded: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Todo {
    TakeOut { from: String, amount: u64 },
    PayIn { to: String, amount: u64 },
    GiveBack { from: String, amount: u64 },
}

#[async_trait]
impl Saga for Moving {
    const NAME: &'static str = "moving-money";
    type Event = AccountEvent;
    type State = Moved;
    type Action = Todo;
    type Answer = ();

    fn correlate(event: &Recorded<AccountEvent>) -> Correlation {
        match (event.stream.id().strip_prefix("from-"), &event.data) {
            (Some(id), AccountEvent::Deposited { .. }) => Correlation::Starts(id.to_owned()),
            (Some(id), _) => Correlation::Continues(id.to_owned()),
            (None, _) => Correlation::None,
        }
    }

    fn react(state: &mut Moved, input: Input<'_, Self>) -> Result<Vec<Effect<Todo>>, BoxError> {
        Ok(match input {
            Input::Event(Recorded { data: AccountEvent::Deposited { amount }, stream, .. }) if state.amount == 0 => {
                state.amount = *amount;
                let take = Todo::TakeOut { from: stream.id().to_owned(), amount: *amount };
                let (name, after) = ("remind".to_owned(), Duration::from_millis(50));
                let is_late = stream.id().ends_with("late");
                let timer = is_late.then_some(Effect::SetTimer { name, after });
                timer.into_iter().chain([Effect::Perform(take)]).collect()
            }
            Input::Event(_) | Input::Asked(_) => vec![],
            Input::Answered { action: Todo::TakeOut { from, amount }, .. } => {
                let to = from.replace("from-", "to-");
                vec![Effect::Perform(Todo::PayIn { to, amount: *amount })]
            }
            Input::Answered { action: Todo::PayIn { to, .. }, .. } if to.ends_with("late") => vec![],
            Input::Answered { .. } => vec![Effect::End],
            Input::Refused { action: Todo::PayIn { to, amount }, .. } => {
                let from = to.replace("to-", "from-");
                vec![Effect::Compensate, Effect::Perform(Todo::GiveBack { from, amount: *amount })]
            }
            Input::Refused { reason, .. } => vec![Effect::Fail { cause: reason.to_owned() }],
            Input::Timer { .. } => {
                state.reminded = true;
                vec![Effect::End]
            }
        })
    }

    async fn perform(&self, action: &Todo, context: ActionContext) -> Result<(), ActionError> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        if self.fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |fails| fails.checked_sub(1)).is_ok() {
            return Err(ActionError::Transient("not now".into()));
        }
        let (account, command) = match action {
            Todo::PayIn { to, .. } if to.ends_with("refused") => {
                return Err(ActionError::Refused("the account is closed".to_owned()));
            }
            Todo::TakeOut { from, amount } => (from, AccountCommand::Withdraw(*amount)),
            Todo::PayIn { to: account, amount } | Todo::GiveBack { from: account, amount } => {
                (account, AccountCommand::Deposit(*amount))
            }
        };
        self.accounts.execute_with(account, command, context.command()?).await?;
        if let (Todo::PayIn { .. }, Some(hangs)) = (action, &self.hangs) {
            hangs.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    fn retry(_: &Todo) -> Retry {
        let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(10));
        Retry { attempts: 3, backoff, ..Retry::default() }
    }
}

struct Bank {
    service: Service,
    fails: Arc<AtomicU32>,
    attempts: Arc<AtomicU32>,
}

impl Bank {
    async fn open(store: impl ServiceStore) -> Self {
        Self::hanging(store, None).await
    }

    async fn hanging(store: impl ServiceStore, hangs: Option<Arc<Notify>>) -> Self {
        let (fails, attempts) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (saga_fails, saga_attempts) = (fails.clone(), attempts.clone());
        let service = Service::builder("bank", store).aggregate::<Account>().saga(|shared| {
            let (accounts, fails, attempts) = (shared.repository(), saga_fails, saga_attempts);
            Moving { accounts, fails, attempts, hangs }
        });
        Self { service: service.start().await.expect("started"), fails, attempts }
    }

    async fn pay_in(&self, account: &str, amount: u64) {
        let accounts = self.service.repository::<Account>();
        accounts.execute(account, AccountCommand::Deposit(amount)).await.expect("paid in");
    }

    async fn ended(&self, id: &str) -> Overview {
        self.service.sagas::<Moving>().ended(id, PATIENCE).await.expect("it ends")
    }

    async fn balance(&self, account: &str) -> u64 {
        let loaded = self.service.repository::<Account>().load(account).await.expect("loaded");
        loaded.state.balance
    }

    async fn close(self) {
        self.service.shutdown(PATIENCE).await.expect("in good order");
    }

    /// The wire names of the events of an instance.
    async fn history(&self, id: &str) -> Vec<String> {
        let stream = self.service.repository::<Instance<Moving>>().stream(id).expect("a stream");
        let events = self.service.store().read_stream(&stream, Version::ZERO, 100).await.expect("read");
        events.into_iter().map(|event| event.data.name.to_string()).collect()
    }
}

/// R20
pub async fn r20_a_saga_performs_its_actions_one_after_the_other_and_completes(store: &(impl ServiceStore + Clone)) {
    let bank = Bank::open(store.clone()).await;
    bank.pay_in("from-ada", 7).await;
    let overview = bank.ended("ada").await;
    assert_eq!(overview.status, Status::Completed);
    assert!(overview.timers.is_empty() && overview.actions.is_empty());
    assert_eq!((bank.balance("from-ada").await, bank.balance("to-ada").await), (0, 7));
    // The payment, two answers, and perhaps that the money was taken out, which it hears too.
    let (history, last) = (bank.history("ada").await, "saga.completed".to_owned());
    assert!(matches!(history.len(), 4 | 5) && history.last() == Some(&last), "{history:?}");
    bank.close().await;
}

/// R20
pub async fn r20_a_refusal_is_an_answer_and_what_was_done_is_taken_back(store: &(impl ServiceStore + Clone)) {
    let bank = Bank::open(store.clone()).await;
    bank.pay_in("from-refused", 7).await;
    assert_eq!(bank.ended("refused").await.status, Status::Compensated);
    assert_eq!((bank.balance("from-refused").await, bank.balance("to-refused").await), (7, 0));
    bank.close().await;
}

/// R20
pub async fn r20_an_action_that_fails_for_now_is_attempted_again_and_done_once(store: &(impl ServiceStore + Clone)) {
    let bank = Bank::open(store.clone()).await;
    bank.fails.store(2, Ordering::SeqCst);
    bank.pay_in("from-ada", 7).await;
    assert_eq!(bank.ended("ada").await.status, Status::Completed);
    assert_eq!((bank.balance("to-ada").await, bank.attempts.load(Ordering::SeqCst)), (7, 4));
    bank.close().await;
}

/// R20
pub async fn r20_r22_after_its_last_attempt_a_saga_has_failed_and_goes_on_when_an_operator_says_so(
    store: &(impl ServiceStore + Clone),
) {
    let bank = Bank::open(store.clone()).await;
    bank.fails.store(3, Ordering::SeqCst);
    bank.pay_in("from-ada", 7).await;
    let overview = bank.ended("ada").await;
    assert_eq!(
        (overview.status, overview.cause.as_deref()),
        (Status::Failed, Some("an action failed for now: not now"))
    );
    // What happens meanwhile waits too.
    bank.pay_in("from-ada", 1).await;
    let act = Act::new("ada", "ticket 7").expect("valid");
    let sagas = bank.service.sagas::<Moving>();
    sagas.ask("ada", Ask::Retry, &act).await.expect("it goes on");
    let ended = loop {
        let overview = bank.ended("ada").await;
        if overview.status != Status::Failed {
            break overview;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((ended.status, bank.balance("to-ada").await), (Status::Completed, 7));
    assert!(sagas.ask("ada", Ask::Retry, &act).await.is_err(), "it has not failed");
    assert!(bank.history("ada").await.contains(&"saga.resumed".to_owned()));
    bank.close().await;
}

/// R20
pub async fn r20_a_timer_wakes_its_saga_and_those_of_a_saga_that_has_ended_are_gone(
    store: &(impl ServiceStore + Clone),
) {
    let bank = Bank::open(store.clone()).await;
    bank.pay_in("from-late", 7).await;
    assert_eq!(bank.ended("late").await.status, Status::Completed);
    let instance = bank.service.sagas::<Moving>().get("late").await.expect("read").expect("begun");
    assert!(instance.state().reminded && instance.timers().next().is_none());
    bank.close().await;
}

/// R20: the service before has stopped right after it had decided.
pub async fn r20_what_a_process_has_left_behind_is_done_by_the_next_one(store: &(impl ServiceStore + Clone)) {
    let instances = Repository::<Instance<Moving>>::new(store.clone());
    let accounts = Repository::<Account>::new(store.clone());
    accounts.execute("from-ada", AccountCommand::Deposit(7)).await.expect("paid in");
    let event = store.read_log(Position::ZERO, 1).await.expect("read").remove(0);
    let whole = Heard::<AccountEvent>::from_recorded(&event).expect("read").expect("heard");
    instances.execute("ada", SagaCommand::Event(whole)).await.expect("decided");
    let bank = Bank::open(store.clone()).await;
    assert_eq!(bank.ended("ada").await.status, Status::Completed);
    assert_eq!(bank.balance("to-ada").await, 7);
    bank.close().await;
}

/// R20: each command of a saga carries a key of its own, so what is performed again changes nothing.
///
/// Seen to fail where actions carry no key: the amount was paid in twice.
pub async fn r20_what_was_done_before_a_process_was_killed_takes_effect_once(store: &(impl ServiceStore + Clone)) {
    let paid_in = Arc::new(Notify::new());
    let killed = Bank::hanging(store.clone(), Some(paid_in.clone())).await;
    killed.pay_in("from-ada", 7).await;
    paid_in.notified().await;
    // The instance is not told what was done.
    drop(killed);
    let bank = Bank::open(store.clone()).await;
    assert_eq!(bank.ended("ada").await.status, Status::Completed);
    assert_eq!((bank.balance("to-ada").await, bank.attempts.load(Ordering::SeqCst)), (7, 1));
    bank.close().await;
}

/// R20
pub async fn r20_services_that_come_and_go_leave_no_saga_unfinished(store: &(impl ServiceStore + Clone)) {
    let accounts = Repository::<Account>::new(store.clone());
    let mut bank = Bank::open(store.clone()).await;
    for number in 0..60 {
        accounts.execute(format!("from-{number}"), AccountCommand::Deposit(1)).await.expect("paid in");
        if number % 15 == 7 {
            drop(bank);
            bank = Bank::open(store.clone()).await;
        }
    }
    for number in 0..60 {
        assert_eq!(bank.ended(&number.to_string()).await.status, Status::Completed, "{number}");
        assert_eq!(bank.balance(&format!("to-{number}")).await, 1, "{number}");
    }
    bank.close().await;
}

/// R20, R22: a program without the code of the saga asks, as `es` does.
pub async fn r20_r22_an_instance_does_what_its_stream_tells_that_an_operator_has_asked_for(
    store: &(impl ServiceStore + Clone),
) {
    let bank = Bank::open(store.clone()).await;
    bank.fails.store(3, Ordering::SeqCst);
    bank.pay_in("from-ada", 7).await;
    assert_eq!(bank.ended("ada").await.status, Status::Failed);
    let act = Act::new("ada", "ticket 7").expect("valid");
    let sagas = NamedSaga::all(store).await.expect("read");
    let saga = sagas.iter().find(|saga| saga.name() == Moving::NAME).expect("it has run here");
    let failed = saga.list(Some(Status::Failed), 10).await.expect("read");
    assert_eq!(failed.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), ["ada"]);
    assert_eq!(
        (saga.count(Status::Failed).await.expect("read"), saga.list(None, 10).await.expect("read").len()),
        (1, 1)
    );
    assert!(saga.ask("bob", Ask::Retry, &act).await.is_err(), "it has not begun");
    // A saga that is no list of steps skips nothing. That it is told changes nothing.
    let skip = Ask::Skip { step: "pay".to_owned() };
    saga.ask("ada", skip, &act).await.expect("asked");
    saga.ask("ada", Ask::Retry, &act).await.expect("asked");
    let ended = loop {
        let overview = bank.ended("ada").await;
        if overview.status != Status::Failed {
            break overview;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((ended.status, ended.asked_at, bank.balance("to-ada").await), (Status::Completed, None, 7));
    let history = bank.history("ada").await;
    let count = |name: &str| history.iter().filter(|told| *told == name).count();
    assert_eq!(["saga.asked", "saga.declined", "saga.resumed"].map(count), [2, 1, 1], "{history:?}");
    bank.close().await;
}

/// Thanks for what is paid in, as version `V` has it; other code under the same name.
struct Thanking<const V: u32, const MIGRATES: bool>;

#[async_trait]
impl<const V: u32, const MIGRATES: bool> Saga for Thanking<V, MIGRATES> {
    const NAME: &'static str = "thanking";
    const VERSIONS: &'static [u32] = &[V];
    type Event = AccountEvent;
    type State = u64;
    type Action = u64;
    type Answer = ();

    fn correlate(event: &Recorded<AccountEvent>) -> Correlation {
        match event.data {
            AccountEvent::Deposited { .. } => Correlation::Starts(event.stream.id().to_owned()),
            AccountEvent::Withdrawn { .. } => Correlation::Continues(event.stream.id().to_owned()),
        }
    }

    fn react(state: &mut u64, input: Input<'_, Self>) -> Result<Vec<Effect<u64>>, BoxError> {
        Ok(match input {
            Input::Event(Recorded { data: AccountEvent::Deposited { amount }, .. }) => {
                *state = *amount;
                vec![]
            }
            Input::Event(_) => vec![Effect::Perform(*state)],
            _ => vec![Effect::End],
        })
    }

    fn migrate(version: u32, state: &u64) -> Option<u64> {
        (MIGRATES && version == 1).then(|| state * 100)
    }

    async fn perform(&self, _: &u64, _: ActionContext) -> Result<(), ActionError> {
        Ok(())
    }
}

async fn thanking<const V: u32, const MIGRATES: bool>(store: &(impl ServiceStore + Clone)) -> Service {
    let service = Service::builder("bank", store.clone()).aggregate::<Account>();
    service.saga(|_| Thanking::<V, MIGRATES>).start().await.expect("started")
}

/// R20
pub async fn r20_code_that_lacks_the_version_of_an_instance_refuses_and_code_that_migrates_it_goes_on(
    store: &(impl ServiceStore + Clone),
) {
    let first = thanking::<1, false>(store).await;
    let accounts = first.repository::<Account>();
    accounts.execute("ada", AccountCommand::Deposit(7)).await.expect("paid in");
    first.settled(PATIENCE).await.expect("settled");
    drop(first);

    let lacks = thanking::<2, false>(store).await;
    let reason = state_of(&lacks, "perform-thanking", |state| match state {
        PartState::Stopped { reason } => Some(reason.clone()),
        _ => None,
    });
    let reason = reason.await;
    assert!(reason.contains("([2]): ada (version 1)"), "{reason}");
    // It does not react either.
    lacks.repository::<Account>().execute("ada", AccountCommand::Withdraw(7)).await.expect("withdrawn");
    state_of(&lacks, "thanking", |state| matches!(state, PartState::Stopped { .. }).then_some(())).await;
    drop(lacks);

    let migrates = thanking::<2, true>(store).await;
    let sagas = migrates.sagas::<Thanking<2, true>>();
    let ended = sagas.ended("ada", PATIENCE).await.expect("it ends");
    assert_eq!((ended.status, ended.version), (Status::Completed, 2));
    let instance = sagas.get("ada").await.expect("read").expect("begun");
    assert_eq!(*instance.state(), 700);
    drop(migrates);

    // Code of the version before stands by: newer code has taken over.
    let older = thanking::<1, false>(store).await;
    let event = store.read_log(Position::ZERO, 1).await.expect("read").remove(0);
    let event = Heard::<AccountEvent>::from_recorded(&event).expect("read").expect("heard");
    let newer = Repository::<Instance<Thanking<2, true>>>::new(store.clone());
    newer.execute("bob", SagaCommand::Event(event)).await.expect("begun");
    state_of(&older, "saga-thanking", |state| matches!(state, PartState::StandingBy { .. }).then_some(())).await;
}

/// Waits until the state of a part is one of which something is told.
async fn state_of<T>(service: &Service, part: &str, tells: impl Fn(&PartState) -> Option<T>) -> T {
    let waits = async {
        loop {
            if let Some(told) = service.status().await.part(part).and_then(|part| tells(&part.state)) {
                return told;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.unwrap_or_else(|_| panic!("{part} is in another state"))
}
