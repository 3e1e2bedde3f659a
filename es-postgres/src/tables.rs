//! The tables of table projections: each generation has a schema of its own.

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
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use tokio::time::Instant;

pub use self::reading::PgReading;
use crate::{
    error::{self, Fault},
    guard::Guarded,
    read_models::leases,
    session,
    store::PostgresStore,
};

/// The longest public name of a schema, in bytes. Postgres allows 63 for that of a generation, which ends in its number.
const MAX_NAME_BYTES: usize = 48;

/// What the store's sessions set for their own statements, and an application's statements do without.
const PLANNER: &str = "SET LOCAL enable_seqscan TO DEFAULT; SET LOCAL enable_bitmapscan TO DEFAULT;
    SET LOCAL plan_cache_mode TO DEFAULT; SET LOCAL work_mem TO DEFAULT; SET LOCAL jit TO DEFAULT";

/// The tables of a generation, in the transaction that commits its checkpoint.
#[derive(Debug)]
pub struct PgTables<'c> {
    connection: &'c mut PgConnection,
}

impl PgTables<'_> {
    /// The connection. Its search path leads to the tables and to nothing else but `pg_catalog`. Savepoints
    /// (`connection.begin()`) may be set; the transaction itself must not be ended. What is set in it (`SET`, with `LOCAL` or
    /// without), temporary tables and advisory locks end with the transaction.
    pub fn connection(&mut self) -> &mut PgConnection {
        self.connection
    }
}

#[async_trait]
impl TableStore for PostgresStore {
    type Tables<'c> = PgTables<'c>;
    type Reading = PgReading;

    async fn create_tables(
        &self,
        generation: &Generation,
        migrations: &'static [&'static str],
    ) -> Result<(), CreateTablesError> {
        let name = format!("{}_{}", self.inner.schema, generation.reader.name.replace('-', "_"));
        if name.len() > MAX_NAME_BYTES {
            return Err(refused_name(generation, name, "longer than 48 bytes"));
        }
        let connections = &self.inner.connections;
        let create = async {
            let mut taken = connections.take().await?;
            match create(&mut taken.connection, generation, &name, migrations).await {
                Ok(Ok(())) => {
                    connections.restore(taken).await;
                    Ok(Ok(()))
                }
                // Its transaction may be open.
                failed => failed,
            }
        };
        match connections.within(connections.answer_within(), create).await {
            Ok(created) => created,
            Err(cause) if error::is_forbidden(&cause) => Err(CreateTablesError::Forbidden(cause.into())),
            Err(cause) => Err(error::read_model(cause).into()),
        }
    }

    async fn commit_tables(
        &self,
        lease: &Lease,
        changes: Changes,
        write: &dyn TableWrite<Self>,
    ) -> Result<(), CommitTablesError> {
        let connections = &self.inner.connections;
        let sent = Instant::now();
        let commit = async {
            let mut taken = connections.take_for(lease.reader.id).await?;
            match commit(&mut taken.connection, lease, &changes, write, connections.answer_within()).await {
                Ok(Ok(acts)) => Ok(Ok((acts, taken))),
                Ok(Err(Refusal { reason, is_rolled_back: true })) => taken.give_back(Ok(Err(reason))),
                // Its transaction may be open, and it may be in the middle of a statement.
                Ok(Err(Refusal { reason, .. })) => Ok(Err(reason)),
                Err(cause) => Err(cause),
            }
        };
        let committed = connections.within(connections.answer_within(), commit).await;
        let (acts, taken) = committed.map_err(|cause| CommitError::Store(error::read_model(cause)))??;
        self.has_committed(lease, sent, acts);
        connections.restore(taken).await;
        Ok(())
    }

    async fn read_tables(&self, projection: &str) -> Result<Option<PgReading>, ReadModelError> {
        reading::begin(&self.inner.connections, projection).await.map_err(error::read_model)
    }
}

/// Makes the tables of `generation`, unless they are there. `Err` is an error of the store.
async fn create(
    Guarded { connection, guard, .. }: &mut Guarded,
    generation: &Generation,
    name: &str,
    migrations: &'static [&'static str],
) -> Result<Result<(), CreateTablesError>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let create = sqlx::query(include_str!("sql/create_tables.sql")).bind(generation.reader.id).bind(name);
    let rows = guard.query(create)?.fetch_all(&mut *transaction).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let ended = match row.try_get(0)? {
        "created" => None,
        "there" => Some(Ok(())),
        "taken" => Some(Err(refused_name(generation, name.to_owned(), "that of another schema"))),
        _ => Some(Err(CreateTablesError::Gone)),
    };
    if let Some(ended) = ended {
        transaction.rollback().await?;
        return Ok(ended);
    }
    enter(&mut transaction, row.try_get(1)?).await?;
    for (script, number) in migrations.iter().zip(1..) {
        if let Err(cause) = run(&mut transaction, script).await {
            if error::fault(&cause) == Fault::Lost {
                return Err(cause);
            }
            let (projection, reason) = (generation.reader.name.clone(), cause.into());
            return Ok(Err(CreateTablesError::Migration { projection, number, reason }));
        }
    }
    transaction.commit().await?;
    Ok(Ok(()))
}

/// Runs a script of the application, which cannot end the transaction unnoticed.
async fn run(transaction: &mut PgConnection, script: &'static str) -> Result<(), sqlx::Error> {
    let mut savepoint = transaction.begin().await?;
    sqlx::raw_sql(script).execute(&mut *savepoint).await?;
    savepoint.commit().await
}

fn refused_name(generation: &Generation, name: String, why: &'static str) -> CreateTablesError {
    CreateTablesError::Name { projection: generation.reader.name.clone(), name, why }
}

/// Why nothing was committed.
struct Refusal {
    reason: CommitTablesError,
    /// Whether the connection can be used again.
    is_rolled_back: bool,
}

/// Commits `changes` and what `write` does, all within `limit`. `Err` is an error of the store.
async fn commit(
    Guarded { connection, guard, .. }: &mut Guarded,
    lease: &Lease,
    changes: &Changes,
    write: &dyn TableWrite<PostgresStore>,
    limit: Duration,
) -> Result<Result<Acts, Refusal>, sqlx::Error> {
    // A process that is frozen in the middle of the transaction must not hold its locks for ever, since no other one could take over.
    let begin =
        format!("BEGIN; SET LOCAL idle_in_transaction_session_timeout TO {}", session::milliseconds(Some(limit)));
    let mut transaction = connection.begin_with(AssertSqlSafe(begin)).await?;
    // Before all that the application writes, the compare-and-set: a former lease holder writes nothing (R9). It also locks the
    // checkpoint, so that the generation is not promoted meanwhile.
    let commit = match leases::commit(lease, changes) {
        Ok(commit) => commit,
        Err(error) => return Ok(Err(Refusal { reason: error.into(), is_rolled_back: false })),
    };
    let rows = guard.query(commit)?.fetch_all(&mut *transaction).await?;
    let acts = match leases::committed(&rows, lease, changes)? {
        Ok(acts) => acts,
        Err(error) => {
            transaction.rollback().await?;
            return Ok(Err(Refusal { reason: error.into(), is_rolled_back: true }));
        }
    };
    if changes.inbox.is_some() && rows.first().map(|row| row.try_get::<i64, _>("known")).transpose()? != Some(0) {
        transaction.rollback().await?;
        return Ok(Err(Refusal { reason: CommitTablesError::Handled, is_rolled_back: true }));
    }
    let schema = sqlx::query(include_str!("sql/tables_of.sql")).bind(lease.reader.id);
    let rows = guard.query(schema)?.fetch_all(&mut *transaction).await?;
    enter(&mut transaction, rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get(0)?).await?;
    if let Some(limit) = write.time_limit() {
        // Otherwise a statement whose client has gone would go on, and keep its locks.
        let limit = format!("SET LOCAL statement_timeout TO {}", session::milliseconds(Some(limit)));
        sqlx::raw_sql(AssertSqlSafe(limit)).execute(&mut *transaction).await?;
    }
    match written(&mut transaction, write, limit / 10 * 8).await? {
        Ok(()) => transaction.commit().await?,
        Err(reason) => {
            let is_whole = matches!(reason, CommitTablesError::Write(WriteError::Failed(_)));
            // At once: until then the checkpoint is locked.
            let is_rolled_back = is_whole && transaction.rollback().await.is_ok();
            return Ok(Err(Refusal { reason, is_rolled_back }));
        }
    }
    Ok(Ok(acts))
}

/// Lets `write` write, for no longer than `limit`: if the store gave up, the same events would be written again. `Err` is an error of
/// the store.
async fn written(
    transaction: &mut PgConnection,
    write: &dyn TableWrite<PostgresStore>,
    limit: Duration,
) -> Result<Result<(), CommitTablesError>, sqlx::Error> {
    // Ending it shows whether the application has ended the transaction, or has ignored the error of a statement.
    let mut savepoint = transaction.begin().await?;
    let mut tables = PgTables { connection: &mut savepoint };
    let writing = tokio::time::timeout(limit, write.write(&mut tables)).await;
    match writing.unwrap_or(Err(WriteError::TooSlow(limit))) {
        Ok(()) => {}
        Err(WriteError::Failed(reason)) if may_pass(&*reason) => {
            return Ok(Err(CommitError::Store(ReadModelError(reason)).into()));
        }
        Err(failure) => return Ok(Err(failure.into())),
    }
    // What the constraints refuse is refused here, where it is known to be the application's.
    if let Err(cause) = sqlx::raw_sql("SET CONSTRAINTS ALL IMMEDIATE").execute(&mut *savepoint).await {
        return refused(cause);
    }
    savepoint.commit().await.map_or_else(refused, |()| Ok(Ok(())))
}

fn refused(cause: sqlx::Error) -> Result<Result<(), CommitTablesError>, sqlx::Error> {
    match error::fault(&cause) {
        Fault::Lost | Fault::Busy => Err(cause),
        Fault::Refused | Fault::Fatal => Ok(Err(WriteError::Failed(cause.into()).into())),
    }
}

/// Lets the names in the statements of the transaction be those in `schema`, and plans them as the server is configured.
async fn enter(transaction: &mut PgConnection, schema: &str) -> Result<(), sqlx::Error> {
    let enter = format!("SET LOCAL search_path TO {}, pg_temp; {PLANNER}", quoted(schema));
    sqlx::raw_sql(AssertSqlSafe(enter)).execute(transaction).await?;
    Ok(())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Whether the error of an application is one of the connection or of a lock. A statement that the server has ended because it took
/// too long is not: fewer events may take less time.
fn may_pass(error: &(dyn StdError + 'static)) -> bool {
    const CANCELLED: &str = "57014";
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(cause) = cause.downcast_ref::<sqlx::Error>() {
            let is_cancelled =
                cause.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some(CANCELLED);
            return !is_cancelled && matches!(error::fault(cause), Fault::Lost | Fault::Busy);
        }
        next = cause.source();
    }
    false
}
