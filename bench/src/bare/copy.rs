//! A history: one `COPY` of all its rows, which are written out while the server takes them in. Its numbers are known
//! without looking: no other client writes.

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use es_postgres::Imported;
use sqlx::PgConnection;

use crate::{
    bare::{self, fold},
    contender::{Client, Contender, Task},
    history::History,
};

/// How much is handed to the driver at once: as much as ours.
pub(super) const PIECE: usize = 128 * 1024;

/// What begins a binary `COPY`: signature, no flags, no extension.
pub(super) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// 2000-01-01, from which Postgres counts, in microseconds since 1970.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

pub(crate) struct Copy {
    url: String,
}

impl Copy {
    pub(crate) fn new(task: &Task) -> Self {
        Self { url: task.url.clone() }
    }
}

#[async_trait]
impl Contender for Copy {
    async fn client(&self) -> Result<Box<dyn Client>> {
        Ok(Box::new(Copier { connection: bare::connect(&self.url).await?, head: 0 }))
    }
}

struct Copier {
    connection: PgConnection,
    head: usize,
}

#[async_trait]
impl Client for Copier {
    async fn import(&mut self, _: &str, history: History) -> Result<()> {
        let (events, streams) = (history.events.len(), history.streams);
        let mut copy = self.connection.copy_in_raw(include_str!("../sql/bare_copy.sql")).await?;
        // Room for the row that exceeds it.
        let mut rows = Vec::with_capacity(PIECE + 4_096);
        rows.extend_from_slice(HEADER);
        for (index, event) in history.events.into_iter().enumerate() {
            write(&mut rows, self.head + index + 1, index / streams + 1, &event)?;
            if rows.len() >= PIECE {
                copy.send(rows.as_slice()).await?;
                rows.clear();
            }
        }
        rows.extend_from_slice(&(-1_i16).to_be_bytes());
        copy.send(rows.as_slice()).await?;
        let written = copy.finish().await?;
        ensure!(usize::try_from(written)? == events, "{written} of {events} rows");
        self.head += events;
        Ok(())
    }

    async fn rebuild(&mut self) -> Result<()> {
        fold::rebuild(&mut self.connection).await
    }

    async fn catch_up(&mut self) -> Result<()> {
        fold::catch_up(&mut self.connection).await
    }
}

/// Adds a row of nine columns, the last of which is null.
fn write(rows: &mut Vec<u8>, position: usize, version: usize, event: &Imported) -> Result<()> {
    let recorded_at = event.recorded_at.timestamp_micros() - EPOCH_MICROS;
    rows.extend_from_slice(&9_i16.to_be_bytes());
    column(rows, &i64::try_from(position)?.to_be_bytes())?;
    column(rows, &i64::try_from(version)?.to_be_bytes())?;
    column(rows, &recorded_at.to_be_bytes())?;
    column(rows, event.id.as_bytes())?;
    column(rows, &event.data.schema_version.to_be_bytes())?;
    column(rows, event.stream.as_str().as_bytes())?;
    column(rows, event.data.name.as_bytes())?;
    column(rows, &event.data.payload)?;
    rows.extend_from_slice(&(-1_i32).to_be_bytes());
    Ok(())
}

pub(super) fn column(rows: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    rows.extend_from_slice(&i32::try_from(bytes.len()).context("a long column")?.to_be_bytes());
    rows.extend_from_slice(bytes);
    Ok(())
}
