//! Commands at times, on every store.

use std::time::Duration;

use async_trait::async_trait;
use es_core::{
    Act, ActionContext, ActionError, Every, Policy, PolicyError, Recorded, Repository, Schedule, ScheduleError,
    Schedules, Service, ServiceStore, When,
    react::{saga::Status, schedule::Planning},
    reaction,
    testing::account::{Account, AccountCommand, AccountEvent},
};

const PATIENCE: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(50);

/// Pays one into an account.
struct Gifts {
    accounts: Repository<Account>,
}

#[async_trait]
impl Schedule for Gifts {
    const NAME: &'static str = "gifts";
    type Command = String;

    async fn run(&self, account: &String, context: ActionContext) -> Result<(), ActionError> {
        self.accounts.execute_with(account, AccountCommand::Deposit(1), context.command()?).await?;
        Ok(())
    }
}

/// Has a gift sent a bit after something is paid into `customer`.
struct Thanking {
    gifts: Schedules<Gifts>,
}

#[async_trait]
impl Policy for Thanking {
    const NAME: &'static str = "thanking";
    type Event = AccountEvent;

    async fn react(&self, event: &Recorded<AccountEvent>) -> Result<(), PolicyError> {
        if event.stream.id() == "customer" {
            let context = reaction(event, Self::NAME, "gift")?;
            let planned = self.gifts.plan("thanks", "thanked".to_owned(), When::After(SOON), context).await;
            planned.map_err(|error| PolicyError::Permanent(error.into()))?;
        }
        Ok(())
    }
}

async fn opened(store: &(impl ServiceStore + Clone)) -> Service {
    let service = Service::builder("bank", store.clone()).aggregate::<Account>();
    let service = service.schedule(|shared| Gifts { accounts: shared.repository() });
    service.policy(|shared| Thanking { gifts: shared.schedules() }).start().await.expect("started")
}

async fn ended(service: &Service, id: &str) -> Status {
    service.sagas::<Planning<Gifts>>().ended(id, PATIENCE).await.expect("it ends").status
}

async fn balance(service: &Service, account: &str) -> u64 {
    service.repository::<Account>().load(account).await.expect("loaded").state.balance
}

/// R20
pub async fn r20_what_an_application_or_a_policy_has_planned_is_done_at_its_time_and_once(
    store: &(impl ServiceStore + Clone),
) {
    let service = opened(store).await;
    let gifts = service.schedules::<Gifts>();
    gifts.after("a", "ada".to_owned(), SOON).await.expect("planned");
    gifts.after("b", "bob".to_owned(), Duration::from_hours(1)).await.expect("planned");
    // It is planned anew.
    let at = service.store().now().await.expect("a time");
    gifts.at("b", "bob".to_owned(), at).await.expect("planned");
    service.repository::<Account>().execute("customer", AccountCommand::Deposit(1)).await.expect("paid in");
    for (plan, account) in [("a", "ada"), ("b", "bob"), ("thanks", "thanked")] {
        assert_eq!((ended(&service, plan).await, balance(&service, account).await), (Status::Completed, 1), "{plan}");
    }
    let again = gifts.after("a", "ada".to_owned(), SOON).await;
    assert!(matches!(again, Err(ScheduleError::Ended { .. })), "{again:?}");
    service.shutdown(PATIENCE).await.expect("in good order");
}

/// R20
pub async fn r20_a_plan_outlives_its_process_and_is_cancelled(store: &(impl ServiceStore + Clone)) {
    let service = opened(store).await;
    let gifts = service.schedules::<Gifts>();
    gifts.after("a", "ada".to_owned(), SOON).await.expect("planned");
    gifts.after("late", "late".to_owned(), Duration::from_hours(1)).await.expect("planned");
    gifts.every("often", "often".to_owned(), Every::cron("* * * * *").expect("a pattern")).await.expect("planned");
    drop(service);
    let service = opened(store).await;
    assert_eq!(ended(&service, "a").await, Status::Completed);
    let (gifts, act) = (service.schedules::<Gifts>(), Act::new("ada", "ticket 7").expect("valid"));
    for plan in ["late", "often"] {
        gifts.cancel(plan, &act).await.expect("cancelled");
        assert_eq!(ended(&service, plan).await, Status::Cancelled);
        assert!(gifts.cancel(plan, &act).await.is_err(), "it has ended");
    }
    assert!(gifts.cancel("unknown", &act).await.is_err());
    let plan = gifts.get("late").await.expect("read").expect("planned");
    assert_eq!((plan.state().runs, plan.timers().count()), (0, 0));
    assert_eq!((balance(&service, "ada").await, balance(&service, "late").await), (1, 0));
    service.shutdown(PATIENCE).await.expect("in good order");
}
