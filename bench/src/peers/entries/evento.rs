//! evento on its Postgres backend, and on SQLite.
//!
//! It stores events as bitcode, not as JSON, and offers three kinds of snapshots: none, in memory (what its documentation
//! uses for deciding on commands), and in the store, where every load that finds news writes one.

use anyhow::{Context, Result, anyhow};
use async_trait::async_trait;
use evento::{Evento as Executor, Projection, WriteError, metadata::Event, sql::Sql, sql_migrator};
use sqlx::{ConnectOptions, Postgres, Sqlite, sqlite::SqlitePoolOptions};
use sqlx_migrator::{Migrate, Plan};
use uuid::Uuid;

use crate::{
    account::{self, Deposit},
    contender::{Client, Contender, Task, Work},
    embedded,
    peers::entries,
};

/// The same event.
#[evento::aggregate(name = "bench/Account")]
enum Account {
    Deposited { amount: u64, currency: String, reference: String, note: String },
}

/// The state, three times: the kind of its snapshots is part of its type.
macro_rules! state {
    ($module:ident, $(#[$attribute:meta])+) => {
        mod $module {
            use super::{Account, Deposited, Event, account};

            $(#[$attribute])+
            pub(super) struct State {
                pub(super) balance: u64,
                pub(super) changes: u64,
            }

            impl State {
                pub(super) fn account(&self) -> account::Account {
                    account::Account { balance: self.balance, changes: self.changes }
                }
            }

            #[evento::handler]
            async fn on_deposited(event: Event<Deposited>, state: &mut State) -> anyhow::Result<()> {
                state.balance += event.data.amount;
                state.changes += 1;
                Ok(())
            }

            pub(super) fn projection() -> super::Projection<super::Executor, State> {
                super::Projection::new::<Account>().handler(on_deposited()).strict()
            }
        }
    };
}

state!(replayed, #[evento::projection] #[evento::snapshot(none)]);
state!(in_memory, #[evento::projection] #[evento::snapshot(memory)]);
state!(stored, #[evento::projection(bitcode::Encode, bitcode::Decode)]);

pub(super) async fn create_tables(task: &Task) -> Result<()> {
    if embedded::is_file(&task.url) {
        let mut connection = embedded::options(&task.url).connect().await?;
        sql_migrator::new::<Sqlite>()?.run(&mut connection, &Plan::apply_all()).await?;
        return Ok(());
    }
    let pool = entries::pool_0_9(task, 1).await?;
    let mut connection = pool.acquire().await?;
    sql_migrator::new::<Postgres>()?.run(&mut *connection, &Plan::apply_all()).await?;
    Ok(())
}

pub(super) async fn connect(task: &Task) -> Result<Box<dyn Contender>> {
    let executor = if embedded::is_file(&task.url) {
        embedded_executor(task).await?
    } else {
        Sql::from(entries::pool_0_9(task, entries::connections(task)).await?).into()
    };
    Ok(Box::new(Evento { executor, work: task.work }))
}

/// One connection writes, since a file has one writer, and more of them would wait for it by polling. A few others read.
async fn embedded_executor(task: &Task) -> Result<Executor> {
    let pool = async |connections| {
        let options = SqlitePoolOptions::new().min_connections(connections).max_connections(connections);
        let options = options.acquire_timeout(entries::PATIENCE).test_before_acquire(false);
        options.connect_with(embedded::options(&task.url)).await.map(Sql::from)
    };
    let (readers, writer): (evento::Sqlite, evento::Sqlite) = (pool(4).await?, pool(1).await?);
    Ok(Executor::new(evento::sql::RwSqlite::from((readers, writer))))
}

#[derive(Clone)]
struct Evento {
    executor: Executor,
    work: Work,
}

impl Evento {
    /// The account, if it has events, and its version.
    async fn state(&self, account: Uuid) -> Result<Option<(account::Account, u16)>> {
        use evento::projection::ProjectionCursor;
        let id = account.to_string();
        Ok(match self.work {
            Work::Load => {
                let state = replayed::projection().load(id).execute(&self.executor).await?;
                state.map(|state| (state.account(), state.get_aggregate_version()))
            }
            Work::LoadSnapshot => {
                let state = stored::projection().load(id).execute(&self.executor).await?;
                state.map(|state| (state.account(), state.get_aggregate_version()))
            }
            _ => {
                let state = in_memory::projection().load(id).execute(&self.executor).await?;
                state.map(|state| (state.account(), state.get_aggregate_version()))
            }
        })
    }

    async fn deposit(&self, account: Uuid, times: u32, is_new: bool) -> Result<()> {
        loop {
            let known = if is_new { None } else { self.state(account).await? };
            let (state, version) = known.unwrap_or_default();
            let mut write = evento::append(account.to_string());
            write.original_version(version);
            for account::AccountEvent::Deposited { amount, currency, reference, note } in
                state.decide(Deposit { times })?
            {
                write.event(&Deposited { amount, currency, reference, note });
            }
            match write.commit(&self.executor).await {
                Err(WriteError::InvalidOriginalVersion) => {}
                outcome => return outcome.map(drop).map_err(|error| anyhow!(error)),
            }
        }
    }
}

#[async_trait]
impl Contender for Evento {
    async fn client(&self) -> Result<Box<dyn Client>> {
        Ok(Box::new(self.clone()))
    }

    fn count(&self) -> &'static str {
        "SELECT count(*) FROM event"
    }
}

#[async_trait]
impl Client for Evento {
    async fn execute(&mut self, account: Uuid, version: u64) -> Result<()> {
        self.deposit(account, 1, self.work.begins(version)).await
    }

    async fn fill(&mut self, account: Uuid, times: u32) -> Result<()> {
        self.deposit(account, times, true).await
    }

    async fn load(&mut self, account: Uuid) -> Result<account::Account> {
        Ok(self.state(account).await?.context("an account without events")?.0)
    }
}
