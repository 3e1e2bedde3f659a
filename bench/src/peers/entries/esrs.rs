//! esrs on its Postgres store.
//!
//! It documents optimistic and pessimistic access. Own streams are written optimistically, which costs a round trip and a
//! connection less; on a hot stream the lock saves its users from conflicts, each of which would cost a full load.

use std::sync::Arc;

use anyhow::{Result, bail};
use async_trait::async_trait;
use esrs::{
    Aggregate, AggregateState,
    manager::AggregateManager,
    store::postgres::{PgStore, PgStoreBuilder, PgStoreError, UuidFormat},
};
use uuid::Uuid;

use crate::{
    account::{Account, AccountEvent, Deposit, Full},
    contender::{Client, Contender, Task, Work},
    peers::entries,
};

/// The aggregate, in this framework a word apart from its state.
struct Accounts;

impl Aggregate for Accounts {
    const NAME: &'static str = "account";
    type State = Account;
    type Command = Deposit;
    type Event = AccountEvent;
    type Error = Full;

    fn handle_command(state: &Account, command: Deposit) -> Result<Vec<AccountEvent>, Full> {
        state.decide(command)
    }

    fn apply_event(mut state: Account, event: AccountEvent) -> Account {
        state.fold(&event);
        state
    }
}

fn builder(pool: sqlx_0_8::PgPool) -> PgStoreBuilder<Accounts> {
    // Time-ordered ids are the cheaper of the two that it offers.
    PgStoreBuilder::new(pool).with_event_id_format(UuidFormat::V7)
}

pub(super) async fn create_tables(task: &Task) -> Result<()> {
    builder(entries::pool_0_8(task, 1).await?).try_build().await?;
    Ok(())
}

pub(super) async fn connect(task: &Task) -> Result<Box<dyn Contender>> {
    let locks = task.work == Work::OneStream;
    // A client that holds a lock needs a second connection for its work.
    let connections = entries::connections(task) * if locks { 2 } else { 1 };
    let store = builder(entries::pool_0_8(task, connections).await?).without_running_migrations().try_build().await?;
    Ok(Box::new(Esrs { manager: Arc::new(AggregateManager::new(store)), work: task.work }))
}

#[derive(Clone)]
struct Esrs {
    manager: Arc<AggregateManager<PgStore<Accounts>>>,
    work: Work,
}

impl Esrs {
    async fn handle(&self, state: AggregateState<Account>, times: u32) -> Result<bool> {
        match self.manager.handle_command(state, Deposit { times }).await {
            Ok(outcome) => Ok(outcome.map(|_| true)?),
            Err(PgStoreError::Sqlx(sqlx_0_8::Error::Database(conflict))) if conflict.is_unique_violation() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

#[async_trait]
impl Contender for Esrs {
    async fn client(&self) -> Result<Box<dyn Client>> {
        Ok(Box::new(self.clone()))
    }

    fn count(&self) -> &'static str {
        "SELECT count(*) FROM account_events"
    }
}

#[async_trait]
impl Client for Esrs {
    async fn execute(&mut self, account: Uuid, version: u64) -> Result<()> {
        loop {
            let state = if self.work.begins(version) {
                AggregateState::with_id(account)
            } else if self.work == Work::OneStream {
                self.manager.lock_and_load(account).await?.unwrap_or_default()
            } else {
                self.manager.load(account).await?.unwrap_or_else(|| AggregateState::with_id(account))
            };
            if self.handle(state, 1).await? {
                return Ok(());
            }
        }
    }

    async fn fill(&mut self, account: Uuid, times: u32) -> Result<()> {
        self.handle(AggregateState::with_id(account), times).await.map(drop)
    }

    async fn load(&mut self, account: Uuid) -> Result<Account> {
        match self.manager.load(account).await? {
            Some(state) => Ok(state.into_inner()),
            None => bail!("an account without events"),
        }
    }
}
