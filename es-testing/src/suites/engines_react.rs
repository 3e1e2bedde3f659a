//! Policies, on every store.

use std::time::Duration;

use async_trait::async_trait;
use es_core::{
    EngineError, Policy, PolicyError, PolicyRunner, Position, Recorded, Repository,
    react::policy::reaction,
    testing::account::{Account, AccountCommand, AccountEvent},
};
use tokio_util::sync::CancellationToken;

use super::engines_project::{Store, deposit, load, source};

/// For each deposit of a customer a bonus goes to another account.
#[derive(Debug)]
struct Bonus {
    accounts: Repository<Account>,
    refuse: Option<u64>,
}

#[async_trait]
impl Policy for Bonus {
    const NAME: &'static str = "bonus";
    type Event = AccountEvent;

    async fn react(&self, event: &Recorded<AccountEvent>) -> Result<(), PolicyError> {
        let id = event.stream.id();
        let AccountEvent::Deposited { amount } = event.data else { return Ok(()) };
        if id.starts_with("bonus") {
            return Ok(());
        }
        if self.refuse == Some(amount) {
            return Err(PolicyError::Permanent("no".into()));
        }
        let context = reaction(event, Self::NAME, "deposit")?;
        self.accounts.execute_with(format!("bonus-{id}"), AccountCommand::Deposit(1), context).await?;
        Ok(())
    }
}

fn bonus(store: &impl Store, refuse: Option<u64>) -> PolicyRunner<Bonus> {
    let accounts = Repository::<Account>::new(store.clone()).attempts(1_000);
    PolicyRunner::new(Bonus { accounts, refuse }, source(store), store.clone()).lease(Duration::from_millis(100))
}

/// R6, R9
pub async fn policies_react_once_although_they_are_killed(store: &impl Store) {
    let clients = load(store, 5);
    let shutdown = CancellationToken::new();
    let start = || {
        let (runner, shutdown) = (bonus(store, None), shutdown.clone());
        tokio::spawn(async move { runner.run(shutdown).await })
    };
    let mut worker = start();
    // Killed in the middle of a batch: its first reactions are then repeated.
    for position in [20, 45, 75] {
        store.wait_past(Position::new(position)).await.expect("it continues");
        worker.abort();
        worker = start();
    }
    clients.join_all().await;
    // 50 deposits and as many bonuses: the last one is at position 100.
    store.wait_past(Position::new(99)).await.expect("it continues");
    let checked = Repository::<Account>::new(store.clone());
    for number in 0..10 {
        let bonus = checked.load(&format!("bonus-a{number}")).await.expect("loaded");
        assert_eq!(bonus.state.balance, 5);
    }
    let log = store.read_log(Position::ZERO, 1_000).await.expect("the log");
    let effects = log.iter().filter(|event| event.stream.id().starts_with("bonus"));
    assert!(effects.clone().all(|event| event.metadata.causation_id.is_some()), "cause and effect are linked");
    assert_eq!(effects.count(), 50);
    shutdown.cancel();
    worker.await.expect("no panic").expect("it stops in order");
}

/// R11
pub async fn r11_a_reaction_that_fails_for_good_stops_the_policy_before_it(store: &impl Store) {
    deposit(store, 1).await;
    deposit(store, 13).await;
    let error = bonus(store, Some(13)).run(CancellationToken::new()).await.expect_err("it stops");
    let EngineError::Reaction { event, .. } = error else { panic!("{error:?}") };
    assert_eq!(event.event, "account-a@2");
}
