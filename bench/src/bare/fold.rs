//! A rebuild: one `COPY` of the log, which is parsed and folded in memory while it comes in, and one `COPY` of the documents in
//! the order of their keys. And catching up: pages, each followed by one upsert of the documents that it touches.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result};
use es_core::Event;
use futures::TryStreamExt;
use sqlx::{PgConnection, Row};

use crate::{
    account::{Account, AccountEvent},
    bare::copy::{self, column},
};

/// What stands before the first row: signature, flags, extension.
const HEADER: usize = 19;

pub(super) async fn rebuild(connection: &mut PgConnection) -> Result<()> {
    let schema = AccountEvent::SCHEMAS[0];
    let mut accounts = HashMap::<String, Account>::new();
    let mut pieces = connection.copy_out_raw(include_str!("../sql/bare_copy_out.sql")).await?;
    let mut is_first = true;
    while let Some(piece) = pieces.try_next().await? {
        let mut row = if std::mem::take(&mut is_first) { &piece[HEADER..] } else { &piece[..] };
        // The server sends each row, and the end, as a piece of its own; the first row stands behind the header.
        let columns = i16::from_be_bytes(*row.split_off(..2).context("a row")?.first_chunk().context("a row")?);
        if columns < 0 {
            continue;
        }
        let (key, payload) = (field(&mut row)?, field(&mut row)?);
        let event = AccountEvent::decode(schema.name, schema.version, payload)?;
        let key = std::str::from_utf8(key)?;
        match accounts.get_mut(key) {
            Some(account) => account.fold(&event),
            None => accounts.entry(key.to_owned()).or_default().fold(&event),
        }
    }
    drop(pieces);
    let mut accounts: Vec<_> = accounts.into_iter().collect();
    accounts.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let mut documents = connection.copy_in_raw(include_str!("../sql/bare_copy_documents.sql")).await?;
    let mut rows = Vec::with_capacity(copy::PIECE + 4_096);
    rows.extend_from_slice(copy::HEADER);
    for (key, account) in accounts {
        rows.extend_from_slice(&3_i16.to_be_bytes());
        column(&mut rows, &1_i64.to_be_bytes())?;
        column(&mut rows, key.as_bytes())?;
        column(&mut rows, &serde_json::to_vec(&account)?)?;
        if rows.len() >= copy::PIECE {
            documents.send(rows.as_slice()).await?;
            rows.clear();
        }
    }
    rows.extend_from_slice(&(-1_i16).to_be_bytes());
    documents.send(rows.as_slice()).await?;
    documents.finish().await?;
    Ok(())
}

/// Reads a thousand events at a time, folds them in memory, and writes the documents that they touch with one statement.
pub(super) async fn catch_up(connection: &mut PgConnection) -> Result<()> {
    let schema = AccountEvent::SCHEMAS[0];
    let mut accounts = HashMap::<String, Account>::new();
    let mut after = 0_i64;
    loop {
        let page = sqlx::query(include_str!("../sql/bare_page.sql")).bind(after).fetch_all(&mut *connection).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.try_get(0)?;
        let mut touched = BTreeSet::new();
        for row in &page {
            let (key, payload): (&str, &[u8]) = (row.try_get(1)?, row.try_get(2)?);
            let event = AccountEvent::decode(schema.name, schema.version, payload)?;
            match accounts.get_mut(key) {
                Some(account) => account.fold(&event),
                None => accounts.entry(key.to_owned()).or_default().fold(&event),
            }
            touched.insert(key);
        }
        let documents = touched.iter().map(|key| serde_json::to_vec(&accounts[*key])).collect::<Result<Vec<_>, _>>()?;
        let upsert = sqlx::query(include_str!("../sql/bare_upsert.sql"));
        upsert.bind(touched.into_iter().collect::<Vec<_>>()).bind(documents).execute(&mut *connection).await?;
    }
}

fn field<'a>(row: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = i32::from_be_bytes(*row.split_off(..4).context("a length")?.first_chunk().context("a length")?);
    row.split_off(..usize::try_from(length)?).context("a column")
}
