//! The bare work: what the server can do for a program that does nothing but this one thing.
//!
//! Each works on a table with the columns, types, indexes and settings of ours, through connections of its own and
//! prepared statements.

pub(crate) mod batch;
pub(crate) mod copy;
mod fold;
pub(crate) mod embedded;
pub(crate) mod embedded_fold;
pub(crate) mod insert;
pub(crate) mod kafka;
pub(crate) mod one_stream;
pub(crate) mod read;
pub(crate) mod sagas;
pub(crate) mod tables;

use anyhow::{Context, Result};
use es_core::Event;
use es_postgres::PostgresStore;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use crate::{account::AccountEvent, database};

/// Creates the tables `events`, `event_tags`, `snapshots` and `documents` like ours, whatever ours look like today. Only the
/// position comes from an identity.
pub(crate) async fn create_tables(url: &str) -> Result<()> {
    PostgresStore::options(url).schema("ours").connect().await?.close().await?;
    let mut connection = connect(url).await?;
    for table in ["events", "event_tags", "snapshots", "documents"] {
        let settings: String = sqlx::query_scalar(
            "SELECT coalesce(array_to_string(reloptions, ', '), 'fillfactor = 100') FROM pg_class WHERE oid = $1::regclass",
        )
        .bind(format!("ours.{table}"))
        .fetch_one(&mut connection)
        .await
        .with_context(|| format!("cannot see what {table} looks like"))?;
        let create = format!("CREATE TABLE {table} (LIKE ours.{table} INCLUDING ALL) WITH ({settings})");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut connection).await?;
    }
    let identity = "ALTER TABLE events ALTER position ADD GENERATED ALWAYS AS IDENTITY";
    sqlx::raw_sql(identity).execute(&mut connection).await?;
    sqlx::raw_sql(include_str!("sql/bare_locked.sql")).execute(&mut connection).await?;
    database::analyze(&mut connection).await
}

pub(crate) async fn connect(url: &str) -> Result<PgConnection> {
    Ok(PgConnection::connect(url).await?)
}

/// An event on its way into the table.
pub(crate) struct Row {
    pub(crate) stream: String,
    pub(crate) version: i64,
    pub(crate) id: Uuid,
    pub(crate) name: &'static str,
    pub(crate) schema_version: i32,
    pub(crate) payload: Vec<u8>,
    pub(crate) tags: Vec<String>,
}

impl Row {
    /// A deposit into an account that has had `before` events.
    pub(crate) fn deposit(account: Uuid, before: u64) -> Result<Self> {
        let event = AccountEvent::deposit();
        let schema = event.schema();
        Ok(Self {
            stream: stream(account),
            version: i64::try_from(before + 1)?,
            id: Uuid::now_v7(),
            name: schema.name,
            schema_version: i32::try_from(schema.version)?,
            payload: event.payload(),
            tags: Vec::new(),
        })
    }
}

pub(crate) fn stream(account: Uuid) -> String {
    format!("{}-{account}", AccountEvent::CATEGORY)
}
