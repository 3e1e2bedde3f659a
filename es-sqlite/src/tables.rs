//! The tables of table projections: those of each generation have a prefix of their own.

mod names;
mod reading;

use std::{error::Error as StdError, time::Duration};

use async_trait::async_trait;
use es_core::{
    Generation,
    backend::{
        Acts, Changes, CommitError, CommitTablesError, CreateTablesError, Lease, ReadModelError, TableStore,
        TableWrite, WriteError,
    },
};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use self::names::Names;
pub(crate) use self::names::{drop_tables, swap};
pub use self::reading::SqliteReading;
use crate::{
    SqliteStore,
    error::{Failure, is_refusal, may_pass},
    generations, inbox, leases, letters,
};

/// How long one call of a projection may take: appends wait meanwhile, and one that the projection itself waits for would wait for
/// good.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// The tables of a generation, in the transaction that commits its checkpoint.
#[derive(Debug)]
pub struct SqliteTables<'c> {
    connection: &'c mut SqliteConnection,
    names: Names,
}

impl SqliteTables<'_> {
    /// The connection. Savepoints (`connection.begin()`) may be set; the transaction itself must not be ended.
    ///
    /// It is the connection that makes all writes of the store, so appends wait meanwhile: a write must wait for none. After 10 s it is
    /// interrupted.
    pub fn connection(&mut self) -> &mut SqliteConnection {
        self.connection
    }

    /// `sql` with the names of this generation: `INSERT INTO {orders} …` writes into the table that a migration has made by
    /// `CREATE TABLE {orders} (…)`.
    pub fn sql(&self, sql: &'static str) -> AssertSqlSafe<String> {
        AssertSqlSafe(self.names.sql(sql))
    }
}

#[async_trait]
impl TableStore for SqliteStore {
    type Tables<'c> = SqliteTables<'c>;
    type Reading = SqliteReading;

    async fn create_tables(
        &self,
        generation: &Generation,
        migrations: &'static [&'static str],
    ) -> Result<(), CreateTablesError> {
        let generation = generation.clone();
        let created = self
            .connections()
            .write(move |connection| Box::pin(async move { create(connection, &generation, migrations).await }));
        created.await.map_err(|failure| CreateTablesError::Store(failure.into()))?
    }

    async fn commit_tables(
        &self,
        lease: &Lease,
        changes: Changes,
        write: &dyn TableWrite<Self>,
    ) -> Result<(), CommitTablesError> {
        let mut turn = self.connections().turn().await.map_err(CommitError::from)?;
        let failed = |error: sqlx::Error| CommitTablesError::from(CommitError::from(Failure::from(error)));
        let mut transaction = turn.connection().begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        let acts = self.write_in(&mut transaction, lease, &changes, write).await.map_err(failed)??;
        if let Err(error) = transaction.commit().await {
            // A deferred constraint.
            return Err(if is_refusal(&error) { WriteError::Failed(error.into()).into() } else { failed(error) });
        }
        turn.committed().map_err(|replaced| CommitError::from(Failure::from(replaced)))?;
        lease.hold().note(acts);
        self.progress().moved(&lease.reader.name);
        Ok(())
    }

    async fn read_tables(&self, projection: &str) -> Result<Option<SqliteReading>, ReadModelError> {
        Ok(reading::begin(self.connections(), projection).await?)
    }
}

impl SqliteStore {
    /// Writes `changes`, and lets `write` write. The outer error is one of the store. The caller rolls back after each error.
    async fn write_in(
        &self,
        connection: &mut SqliteConnection,
        lease: &Lease,
        changes: &Changes,
        write: &dyn TableWrite<Self>,
    ) -> Result<Result<Acts, CommitTablesError>, sqlx::Error> {
        let generation = lease.reader.id;
        if let Some(redemption) = &changes.redemption
            && !letters::are_as_read(connection, generation, redemption).await?
        {
            return Ok(Err(CommitError::Edited(redemption.key.clone()).into()));
        }
        // Before all that the application writes, the compare-and-set: a former lease holder writes nothing (R9).
        let Some(acts) = leases::advance(connection, self.holders(), lease, &changes.checkpoint).await? else {
            return Ok(Err(CommitError::Fenced(lease.shard.clone()).into()));
        };
        letters::park(connection, lease, &changes.letters).await?;
        if let Some(redemption) = &changes.redemption {
            letters::redeem(connection, generation, redemption).await?;
        }
        if let Some(inbox) = &changes.inbox
            && !inbox::note(connection, generation, inbox).await?
        {
            return Ok(Err(CommitTablesError::Handled));
        }
        let names = Names::of(connection, generation).await?.ok_or(sqlx::Error::RowNotFound)?;
        // Ending it shows whether the application has ended the transaction.
        let mut savepoint = connection.begin().await?;
        let mut tables = SqliteTables { connection: &mut savepoint, names };
        let writing = tokio::time::timeout(WRITE_WITHIN, write.write(&mut tables)).await;
        match writing.unwrap_or(Err(WriteError::TooSlow(WRITE_WITHIN))) {
            Ok(()) => {}
            Err(WriteError::Failed(reason)) if is_for_now(&*reason) => {
                return Ok(Err(CommitError::Store(ReadModelError(reason)).into()));
            }
            Err(failure) => return Ok(Err(failure.into())),
        }
        match savepoint.commit().await {
            Ok(()) => Ok(Ok(acts)),
            Err(error) if may_pass(&error) => Err(error),
            Err(error) => Ok(Err(WriteError::Failed(error.into()).into())),
        }
    }
}

/// Makes the tables of `generation`, unless they are there. The caller holds the write lock.
async fn create(
    connection: &mut SqliteConnection,
    generation: &Generation,
    migrations: &[&'static str],
) -> Result<Result<(), CreateTablesError>, sqlx::Error> {
    if generations::state(connection, generation.reader.id).await?.is_none() {
        return Ok(Err(CreateTablesError::Gone));
    }
    if Names::of(connection, generation.reader.id).await?.is_some() {
        return Ok(Ok(()));
    }
    let mut savepoint = connection.begin().await?;
    let names = Names::new(generation);
    names.add(&mut savepoint, generation.reader.id).await?;
    for (script, number) in migrations.iter().zip(1..) {
        if let Err(error) = sqlx::raw_sql(AssertSqlSafe(names.sql(script))).execute(&mut *savepoint).await {
            if may_pass(&error) {
                return Err(error);
            }
            savepoint.rollback().await?;
            let (projection, reason) = (generation.reader.name.clone(), error.into());
            return Ok(Err(CreateTablesError::Migration { projection, number, reason }));
        }
    }
    if let Some(name) = names.taken(&mut savepoint).await? {
        savepoint.rollback().await?;
        let (projection, why) = (generation.reader.name.clone(), "that of another table");
        return Ok(Err(CreateTablesError::Name { projection, name, why }));
    }
    savepoint.commit().await?;
    Ok(Ok(()))
}

/// Whether the error of an application is one of a lock, the disk or the memory.
fn is_for_now(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(cause) = cause.downcast_ref::<sqlx::Error>() {
            return may_pass(cause);
        }
        next = cause.source();
    }
    false
}
