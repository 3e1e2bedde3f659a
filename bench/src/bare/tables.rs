//! What a table projection does, by hand: pages of the log, parsed, and the same statement for each. No checkpoint is kept, so a
//! statement is a transaction by itself.

use anyhow::{Context, Result};
use es_core::Event;
use rusqlite::Connection;
use sqlx::{Executor, PgConnection, Row};

use crate::{account::AccountEvent, bare, embedded, tables::Batch};

/// A connection to a log of ours, with a table of its own beside.
pub(crate) async fn open(url: &str) -> Result<PgConnection> {
    let mut connection = bare::connect(url).await?;
    connection.execute(include_str!("../sql/tables.sql")).await?;
    Ok(connection)
}

/// The same on a file.
pub(crate) fn open_file(url: &str) -> Result<Connection> {
    let connection = embedded::open(url)?;
    connection.execute_batch(&plain(include_str!("../sql/tables_file.sql")))?;
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
pub(crate) fn catch_up_file(connection: &Connection) -> Result<()> {
    let mut write = connection.prepare(&plain(include_str!("../sql/tables_file_write.sql")))?;
    let mut page = connection.prepare(include_str!("../sql/bare_page.sql"))?;
    let mut after = 0_i64;
    loop {
        let (mut events, mut rows) = (Vec::new(), page.query([after])?);
        while let Some(row) = rows.next()? {
            after = row.get(0)?;
            let (account, event) = event(row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_blob()?)?;
            events.push((account.to_owned(), event));
        }
        drop(rows);
        if events.is_empty() {
            return Ok(());
        }
        write.execute([Batch::of(events.iter().map(|(account, event)| (account.as_str(), event))).json()?])?;
    }
}

fn event<'r>(account: &'r str, payload: &[u8]) -> Result<(&'r str, AccountEvent)> {
    let schema = AccountEvent::SCHEMAS.first().context("a schema")?;
    Ok((account, AccountEvent::decode(schema.name, schema.version, payload)?))
}
