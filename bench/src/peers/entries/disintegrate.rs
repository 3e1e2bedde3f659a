//! disintegrate with disintegrate-postgres.
//!
//! Snapshots are used where a stream is long. Its appends are serializable transactions, which the server may refuse
//! although no other client touched the same account; they are made again like conflicts. The fewer run at once, the fewer are
//! refused, so it gets a pool of the size that its documentation leaves it with.

mod boundary;

use anyhow::Result;
use async_trait::async_trait;
use disintegrate::{
    Decision, DecisionError, DecisionMaker, Event, EventSourcedStateStore, LoadState, NoSnapshot, PersistDecision,
    SnapshotConfig, StateMutate, StateQuery, WithSnapshot, serde::json::Json,
};
use disintegrate_postgres::{PgEventId, PgEventStore, PgSnapshotter, WithPgSnapshot};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    account::{self, Full},
    contender::{Client, Contender, Task, Work},
    peers::entries,
};

/// The driver's default. With 64 clients it carried 504 commands a second on 8 connections, and 82 on 64.
const CONNECTIONS: u32 = 10;

/// Events between two snapshots, as many as ours.
const SNAPSHOT_EVERY: u64 = 100;

type Events = PgEventStore<AccountEvent, Json<AccountEvent>>;
type States<S> = EventSourcedStateStore<PgEventId, AccountEvent, Events, S>;

/// The same event, with the account as its domain identifier.
#[derive(Debug, Clone, PartialEq, Event, Serialize, Deserialize)]
enum AccountEvent {
    Deposited {
        #[id]
        owner: Uuid,
        amount: u64,
        currency: String,
        reference: String,
        note: String,
    },
}

#[derive(Debug, Clone, Default, StateQuery, Serialize, Deserialize)]
#[state_query(AccountEvent)]
struct Account {
    #[id]
    owner: Uuid,
    balance: u64,
    changes: u64,
}

impl Account {
    fn of(owner: Uuid) -> Self {
        Self { owner, ..Self::default() }
    }

    fn state(&self) -> account::Account {
        account::Account { balance: self.balance, changes: self.changes }
    }
}

impl StateMutate for Account {
    fn mutate(&mut self, event: AccountEvent) {
        let AccountEvent::Deposited { amount, .. } = event;
        self.balance += amount;
        self.changes += 1;
    }
}

#[derive(Clone, Copy)]
struct Deposit {
    owner: Uuid,
    times: u32,
}

impl Decision for Deposit {
    type Event = AccountEvent;
    type StateQuery = Account;
    type Error = Full;

    fn state_query(&self) -> Account {
        Account::of(self.owner)
    }

    fn process(&self, state: &Account) -> Result<Vec<AccountEvent>, Full> {
        let owner = self.owner;
        let events = state.state().decide(account::Deposit { times: self.times })?.into_iter();
        Ok(events
            .map(|account::AccountEvent::Deposited { amount, currency, reference, note }| AccountEvent::Deposited {
                owner,
                amount,
                currency,
                reference,
                note,
            })
            .collect())
    }
}

pub(super) async fn create_tables(task: &Task) -> Result<()> {
    let pool = entries::pool_0_8(task, 1).await?;
    if task.work == Work::Boundary {
        return boundary::create_tables(pool).await;
    }
    Events::try_new(pool.clone(), Json::default()).await?;
    PgSnapshotter::try_new(pool, SNAPSHOT_EVERY).await?;
    Ok(())
}

pub(super) async fn connect(task: &Task) -> Result<Box<dyn Contender>> {
    let pool = entries::pool_0_8(task, entries::connections(task).min(CONNECTIONS)).await?;
    if task.work == Work::Boundary {
        return Ok(boundary::connect(pool));
    }
    let events = Events::new_uninitialized(pool.clone(), Json::default());
    Ok(match task.work {
        Work::OneStream | Work::LoadSnapshot => {
            let snapshots = PgSnapshotter::new_uninitialized(pool, SNAPSHOT_EVERY);
            Disintegrate::<WithPgSnapshot>::boxed(events, WithSnapshot::new(snapshots))
        }
        _ => Disintegrate::boxed(events, NoSnapshot),
    })
}

#[derive(Clone)]
struct Disintegrate<S: SnapshotConfig + Clone> {
    states: States<S>,
    decisions: DecisionMaker<States<S>>,
}

impl<S> Disintegrate<S>
where
    S: SnapshotConfig + Clone + Send + Sync + 'static,
    States<S>: LoadState<PgEventId, Account, AccountEvent>,
{
    fn boxed(events: Events, snapshots: S) -> Box<dyn Contender> {
        let states = States::new(events, snapshots);
        Box::new(Self { decisions: DecisionMaker::new(states.clone()), states })
    }

    async fn make(&self, deposit: Deposit) -> Result<()>
    where
        States<S>: PersistDecision<PgEventId, Account, AccountEvent>,
    {
        loop {
            match self.decisions.make(deposit).await {
                Err(DecisionError::StateStore(error)) if is_conflict(&*error) => {}
                outcome => return Ok(outcome.map(drop)?),
            }
        }
    }
}

/// Whether a decision is to be made again: another client was faster, or the server could not put the transactions in an order.
fn is_conflict(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    use disintegrate_postgres::Error;
    match error.downcast_ref() {
        Some(Error::Concurrency) => true,
        Some(Error::Database(sqlx_0_8::Error::Database(refusal))) => {
            matches!(refusal.code().as_deref(), Some("40001" | "40P01"))
        }
        _ => false,
    }
}

#[async_trait]
impl<S> Contender for Disintegrate<S>
where
    S: SnapshotConfig + Clone + Send + Sync + 'static,
    States<S>: LoadState<PgEventId, Account, AccountEvent>,
{
    async fn client(&self) -> Result<Box<dyn Client>> {
        Ok(Box::new(self.clone()))
    }

    fn count(&self) -> &'static str {
        "SELECT count(*) FROM event"
    }
}

#[async_trait]
impl<S> Client for Disintegrate<S>
where
    S: SnapshotConfig + Clone + Send + Sync + 'static,
    States<S>: LoadState<PgEventId, Account, AccountEvent>,
{
    async fn execute(&mut self, owner: Uuid, _: u64) -> Result<()> {
        self.make(Deposit { owner, times: 1 }).await
    }

    async fn fill(&mut self, owner: Uuid, times: u32) -> Result<()> {
        self.make(Deposit { owner, times }).await
    }

    async fn load(&mut self, owner: Uuid) -> Result<account::Account> {
        let loaded = self.states.load(Account::of(owner)).await;
        Ok(loaded.map_err(anyhow::Error::from_boxed)?.state().state())
    }
}
