//! Loading: one round trip, typed parsing, and the fold.

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use es_core::Event;
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use uuid::Uuid;

use crate::{
    account::{Account, AccountEvent},
    bare::{self, Row, batch},
    contender::{Client, Contender, Task, Work},
};

pub(crate) struct Read {
    url: String,
    snapshots: bool,
}

impl Read {
    pub(crate) fn new(task: &Task) -> Self {
        Self { url: task.url.clone(), snapshots: task.work == Work::LoadSnapshot }
    }
}

#[async_trait]
impl Contender for Read {
    async fn client(&self) -> Result<Box<dyn Client>> {
        Ok(Box::new(Reader { connection: bare::connect(&self.url).await?, snapshots: self.snapshots }))
    }
}

struct Reader {
    connection: PgConnection,
    snapshots: bool,
}

#[async_trait]
impl Client for Reader {
    /// One more event; in this row it is the tail after the snapshot.
    async fn execute(&mut self, account: Uuid, version: u64) -> Result<()> {
        let row = Row::deposit(account, version)?;
        batch::insert(&mut self.connection, [row].iter()).await?;
        Ok(())
    }

    async fn fill(&mut self, account: Uuid, times: u32) -> Result<()> {
        let rows = (0..u64::from(times)).map(|before| Row::deposit(account, before)).collect::<Result<Vec<_>>>()?;
        let written = batch::insert(&mut self.connection, rows.iter()).await?;
        let (last, _) = *written.last().context("an account without events")?;
        if self.snapshots {
            let state = Account { balance: u64::from(times), changes: u64::from(times) };
            sqlx::query(include_str!("../sql/bare_snapshot.sql"))
                .bind(bare::stream(account))
                .bind(i64::from(times))
                .bind(last)
                .bind(serde_json::to_vec(&state)?)
                .execute(&mut self.connection)
                .await?;
        }
        Ok(())
    }

    async fn load(&mut self, account: Uuid) -> Result<Account> {
        let mut state = Account::default();
        if self.snapshots {
            let query = sqlx::query(include_str!("../sql/bare_load_snapshot.sql")).bind(bare::stream(account));
            let rows = query.fetch_all(&mut self.connection).await?;
            let (snapshot, tail) = rows.split_first().context("an account without a snapshot")?;
            state = serde_json::from_slice(snapshot.try_get(1)?)?;
            ensure!(state.changes == u64::try_from(snapshot.try_get::<i64, _>(0)?)?, "a snapshot of another version");
            tail.iter().try_for_each(|row| fold(&mut state, row, 1))?;
        } else {
            let query = sqlx::query(include_str!("../sql/bare_load.sql")).bind(bare::stream(account));
            let rows = query.fetch_all(&mut self.connection).await?;
            rows.iter().try_for_each(|row| fold(&mut state, row, 0))?;
        }
        Ok(state)
    }
}

fn fold(state: &mut Account, row: &PgRow, column: usize) -> Result<()> {
    let schema = AccountEvent::SCHEMAS[0];
    state.fold(&AccountEvent::decode(schema.name, schema.version, row.try_get(column)?)?);
    Ok(())
}
