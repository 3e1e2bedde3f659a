//! eventually with eventually-postgres, the last versions that share an interface.
//!
//! They date from 2020: they run on a tokio of their own time, and on one connection, as their documentation shows. A
//! conflict is an error like any other, told apart by its text.

use std::{
    str::FromStr,
    sync::{Arc, OnceLock},
};

use anyhow::Result;
use async_trait::async_trait;
use eventually::{Aggregate, AggregateRootBuilder, Repository, repository::Error};
use eventually_postgres::{EventStore, EventStoreBuilder};
use futures::future::{BoxFuture, FutureExt};
use tokio_0_2::runtime::{Builder, Runtime};
use tokio_postgres_0_5::{Config, NoTls, error::SqlState};
use uuid::Uuid;

use crate::{
    account::{Account, AccountEvent, Deposit, Full},
    contender::{Client, Contender, Task, Work},
};

/// The aggregate, in this framework a word apart from its state.
#[derive(Debug, Clone)]
struct Accounts;

impl Aggregate for Accounts {
    type Id = String;
    type State = Account;
    type Event = AccountEvent;
    type Command = Deposit;
    type Error = Full;

    fn apply(mut state: Account, event: AccountEvent) -> Result<Account, Full> {
        state.fold(&event);
        Ok(state)
    }

    fn handle<'a, 's: 'a>(
        &'a self,
        _: &'s String,
        state: &'s Account,
        command: Deposit,
    ) -> BoxFuture<'a, Result<Option<Vec<AccountEvent>>, Full>> {
        async move { state.decide(command).map(Some) }.boxed()
    }
}

type Accounting = Repository<Accounts, EventStore<String, AccountEvent>>;

/// The runtime of its time, on as many threads as the other one.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = Builder::new();
        builder.threaded_scheduler().core_threads(2).enable_all();
        builder.build().expect("threads can be started")
    })
}

async fn client(url: &str) -> Result<tokio_postgres_0_5::Client> {
    let config = Config::from_str(url)?;
    let (client, connection) = runtime().spawn(async move { config.connect(NoTls).await }).await??;
    runtime().spawn(connection);
    Ok(client)
}

/// A repository on a connection of its own.
async fn accounts(url: &str) -> Result<Accounting> {
    let mut client = client(url).await?;
    let builder = EventStoreBuilder::migrate_database(&mut client).await?.builder(Arc::new(client));
    Ok(Repository::new(AggregateRootBuilder::from(Accounts), builder.build("account").await?))
}

pub(super) async fn create_tables(task: &Task) -> Result<()> {
    accounts(&task.url).await.map(drop)
}

pub(super) async fn connect(task: &Task) -> Result<Box<dyn Contender>> {
    let shared = accounts(&task.url).await?;
    Ok(Box::new(Eventually { shared, reads: matches!(task.work, Work::Load), url: task.url.clone() }))
}

/// Appends share a connection: its function numbers the events by a row that it reads without a lock, so the numbers are
/// right only while appends come one after the other. For reads each client gets one of its own.
struct Eventually {
    shared: Accounting,
    reads: bool,
    url: String,
}

#[async_trait]
impl Contender for Eventually {
    async fn client(&self) -> Result<Box<dyn Client>> {
        let accounts = if self.reads { accounts(&self.url).await? } else { self.shared.clone() };
        Ok(Box::new(accounts))
    }
}

async fn deposit(accounts: &mut Accounting, account: Uuid, times: u32) -> Result<()> {
    loop {
        let mut root = accounts.get(account.to_string()).await?;
        root.handle(Deposit { times }).await?;
        match accounts.add(root).await {
            Err(Error::Store(eventually_postgres::store::Error::Postgres(error))) if is_conflict(&error) => {}
            outcome => return Ok(outcome.map(drop)?),
        }
    }
}

/// An exception that its function raises, by its text; or the unique index, if two came at once.
fn is_conflict(error: &tokio_postgres_0_5::Error) -> bool {
    error.code() == Some(&SqlState::UNIQUE_VIOLATION) || error.to_string().contains("invalid aggregate version")
}

#[async_trait]
impl Client for Accounting {
    async fn execute(&mut self, account: Uuid, _: u64) -> Result<()> {
        deposit(self, account, 1).await
    }

    async fn fill(&mut self, account: Uuid, times: u32) -> Result<()> {
        deposit(self, account, times).await
    }

    async fn load(&mut self, account: Uuid) -> Result<Account> {
        let root = self.get(account.to_string()).await?;
        Ok(*root)
    }
}
