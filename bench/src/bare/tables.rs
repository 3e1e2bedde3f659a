//! What a table projection does, by hand: pages of the log, parsed, and the same statement for each. No checkpoint is kept, so a
//! statement is a transaction by itself.

use anyhow::{Context, Result};
use es_core::Event;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection, Row, SqliteConnection};

use crate::{account::AccountEvent, bare, embedded, tables::Batch};

/// A connection to a log of ours, with a table of its own beside.
pub(crate) async fn open(url: &str) -> Result<PgConnection> {
    let mut connection = bare::connect(url).await?;
    connection.execute(include_str!("../sql/tables.sql")).await?;
    Ok(connection)
}

/// The same on a file.
pub(crate) async fn open_file(url: &str) -> Result<SqliteConnection> {
    let mut connection = embedded::options(url).connect().await?;
    connection.execute(AssertSqlSafe(plain(include_str!("../sql/tables_file.sql")))).await?;
    Ok(connection)
}

/// The table has its plain name.
fn plain(sql: &str) -> String {
    sql.replace("{balances}", "balances")
}

pub(crate) async fn catch_up(connection: &mut PgConnection) -> Result<()> {
    let mut after = 0_i64;
    loop {
        let page = sqlx::query(include_str!("../sql/bare_page.sql")).bind(after).fetch_all(&mut *connection).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.try_get(0)?;
        let events = page.iter().map(|row| event(row.try_get(1)?, row.try_get(2)?)).collect::<Result<Vec<_>>>()?;
        Batch::of(events.iter().map(|(account, event)| (*account, event))).write(&mut *connection).await?;
    }
}

/// The same on a file.
pub(crate) async fn catch_up_file(connection: &mut SqliteConnection) -> Result<()> {
    let write = plain(include_str!("../sql/tables_file_write.sql"));
    let mut after = 0_i64;
    loop {
        let page = sqlx::query(include_str!("../sql/bare_page.sql")).bind(after).fetch_all(&mut *connection).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.try_get(0)?;
        let events = page.iter().map(|row| event(row.try_get(1)?, row.try_get(2)?)).collect::<Result<Vec<_>>>()?;
        let batch = Batch::of(events.iter().map(|(account, event)| (*account, event))).json()?;
        sqlx::query(AssertSqlSafe(write.clone())).bind(batch).execute(&mut *connection).await?;
    }
}

fn event<'r>(account: &'r str, payload: &[u8]) -> Result<(&'r str, AccountEvent)> {
    let schema = AccountEvent::SCHEMAS.first().context("a schema")?;
    Ok((account, AccountEvent::decode(schema.name, schema.version, payload)?))
}
