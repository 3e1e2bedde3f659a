//! Before the first append: the right server, the right tables, an append lock that holds.

use es_core::Position;
use sqlx::{
    Connection, PgConnection, Row,
    migrate::{MigrateError, Migrator},
};

use crate::{
    error::{self, Fault, fault},
    session::Session,
};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// The oldest server that the statements are written for and tested on.
const OLDEST_SERVER: i32 = 15;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// It was not called within a tokio runtime.
    #[error("a store needs a tokio runtime")]
    NoRuntime,
    /// The URL is not one of Postgres.
    #[error("the database URL is not understood")]
    Url(#[source] sqlx::Error),
    /// The schema's name would need quotes, is too long or belongs to Postgres.
    #[error("{name:?} is not the name of a schema ([a-z_][a-z0-9_]*, at most 63 bytes, not pg_*)")]
    Schema {
        /// What was given.
        name: String,
    },
    /// The server cannot be reached or does not let us in.
    #[error("cannot connect to the database")]
    Connect(#[source] sqlx::Error),
    /// The server is older than the statements allow.
    #[error("the server is Postgres {found}, the oldest supported one is {OLDEST_SERVER}")]
    ServerTooOld {
        /// Its major version.
        found: i32,
    },
    /// The database does not store UTF-8, in which names and events are written.
    #[error("the database is encoded in {found}, it must be UTF8")]
    Encoding {
        /// Its encoding.
        found: String,
    },
    /// The schema could not be brought up to date.
    #[error("cannot migrate the schema")]
    Migrate(#[source] MigrateError),
    /// A newer version of this crate has changed the schema.
    #[error("the schema has migration {found}, which is newer than this program")]
    NewerSchema {
        /// The schema's last migration.
        found: i64,
    },
    /// The schema is not up to date, and the role that connects has no right to change it: let its owner
    /// connect first, then call `grant_application` again (see the crate's documentation).
    #[error("migrations {missing:?} are missing, and this role may not apply them")]
    MayNotMigrate {
        /// Their numbers.
        missing: Vec<i64>,
        /// What the server said.
        #[source]
        cause: MigrateError,
    },
    /// The schema is missing or not up to date, and it was [not to be changed](crate::PostgresOptions::migrate).
    #[error("migrations {missing:?} are missing in the schema")]
    NotMigrated {
        /// Their numbers.
        missing: Vec<i64>,
    },
    /// Two sessions could hold the append lock at once: this server does not keep advisory locks, or a
    /// pooler between hides them. Positions would not be dense; nothing was written.
    #[error("two sessions hold the append lock at once: the server or a pooler does not keep advisory locks")]
    NoAppendLock,
    /// A pooler between gives the statements of one connection to several sessions of the server, or the session of one
    /// connection to another: it is in transaction or statement mode. Let it pool in session mode, or connect past it.
    #[error("a pooler shares the server's sessions between connections (transaction or statement mode)")]
    SharedSession,
    /// The server failed while the store was being opened.
    #[error("the database failed")]
    Server(#[source] sqlx::Error),
}

impl ConnectError {
    /// Whether connecting again may help, unchanged: the server is not there yet, or busy.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect(error) | Self::Server(error) => matches!(fault(error), Fault::Busy | Fault::Lost),
            Self::Migrate(MigrateError::Execute(error)) => matches!(fault(error), Fault::Busy | Fault::Lost),
            _ => false,
        }
    }
}

/// Makes the schema ready and tells its oid and the head of its log.
pub(crate) async fn prepare(session: &Session, may_migrate: bool) -> Result<(i64, Position), ConnectError> {
    let (mut connection, _) = session.open().await.map_err(ConnectError::Connect)?;
    let (mut second, _) = session.open().await.map_err(ConnectError::Connect)?;
    if !keeps_sessions(&mut connection, &mut second).await.map_err(ConnectError::Server)? {
        return Err(ConnectError::SharedSession);
    }
    check_server(&mut connection).await?;
    migrate(session.schema(), &mut connection, may_migrate).await?;
    if !append_lock_holds(&mut connection, &mut second).await.map_err(ConnectError::Server)? {
        return Err(ConnectError::NoAppendLock);
    }
    let (schema, head) = sqlx::query_as(include_str!("sql/opened.sql"))
        .bind(session.schema())
        .fetch_one(&mut connection)
        .await
        .map_err(ConnectError::Server)?;
    for connection in [connection, second] {
        // Best effort: it has done its work.
        let _ = connection.close().await;
    }
    Ok((schema, Position::from_i64(head)))
}

/// Whether each of two connections has a session of its own and keeps it. A pooler in transaction mode gives statements
/// whatever session is free. (That it does so later is found out by each statement: `guard.rs`.)
async fn keeps_sessions(first: &mut PgConnection, second: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let mut sessions = [None, None];
    for _ in 0..4 {
        for (connection, session) in [&mut *first, &mut *second].into_iter().zip(&mut sessions) {
            // By the simple protocol: it prepares nothing, which another session would not know of.
            let row = sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(connection).await?;
            let pid: i32 = row.try_get(0)?;
            if session.replace(pid).is_some_and(|former| former != pid) {
                return Ok(false);
            }
        }
        if sessions[0] == sessions[1] {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn check_server(connection: &mut PgConnection) -> Result<(), ConnectError> {
    let server = sqlx::query_as(include_str!("sql/server.sql"));
    let (version, encoding): (i32, String) = server.fetch_one(connection).await.map_err(ConnectError::Server)?;
    let major = version / 10_000;
    if major < OLDEST_SERVER {
        return Err(ConnectError::ServerTooOld { found: major });
    }
    if encoding != "UTF8" {
        return Err(ConnectError::Encoding { found: encoding });
    }
    Ok(())
}

/// A schema that is up to date is only looked at, so that a role without rights on it may connect, also to
/// a replica.
async fn migrate(schema: &str, connection: &mut PgConnection, may_migrate: bool) -> Result<(), ConnectError> {
    let missing = missing(connection).await?;
    if missing.is_empty() {
        return Ok(());
    }
    if !may_migrate {
        return Err(ConnectError::NotMigrated { missing });
    }
    apply(schema, connection).await.map_err(|cause| match &cause {
        MigrateError::Execute(denied) | MigrateError::ExecuteMigration(denied, _) if error::is_forbidden(denied) => {
            ConnectError::MayNotMigrate { missing, cause }
        }
        _ => ConnectError::Migrate(cause),
    })
}

/// The migrations that the schema has not had. It refuses a schema whose migrations are not ours.
async fn missing(connection: &mut PgConnection) -> Result<Vec<i64>, ConnectError> {
    let applied = sqlx::query_as(include_str!("sql/applied.sql")).fetch_all(connection).await;
    let applied: Vec<(i64, bool, Vec<u8>)> = match applied {
        // There is no schema yet, or one that this role cannot see; the migrator finds out.
        Err(cause) if error::is_missing(&cause) || error::is_forbidden(&cause) => Vec::new(),
        applied => applied.map_err(ConnectError::Server)?,
    };
    for (version, success, checksum) in &applied {
        let ours = MIGRATIONS.iter().find(|migration| migration.version == *version);
        // What the schema has and we do not know: migrations are only ever added.
        let ours = ours.ok_or(ConnectError::NewerSchema { found: *version })?;
        if !success {
            return Err(ConnectError::Migrate(MigrateError::Dirty(*version)));
        }
        if *ours.checksum != **checksum {
            return Err(ConnectError::Migrate(MigrateError::VersionMismatch(*version)));
        }
    }
    let is_missing = |version: &i64| applied.iter().all(|(applied, ..)| applied != version);
    Ok(MIGRATIONS.iter().map(|migration| migration.version).filter(is_missing).collect())
}

/// Many processes may start at once: the migrator's advisory lock lets one at a time through, and it
/// creates the schema under that lock too, since two `CREATE SCHEMA IF NOT EXISTS` can collide.
async fn apply(schema: &str, connection: &mut PgConnection) -> Result<(), MigrateError> {
    let mut migrator = Migrator { migrations: MIGRATIONS.migrations.clone(), ..Migrator::DEFAULT };
    migrator.create_schema(schema.to_owned());
    migrator.run_direct(None, connection, false).await
}

/// Whether a second session has to wait for the append lock while a first one holds it. A server that only
/// pretends to lock (it has happened) lets the second one in at once.
async fn append_lock_holds(first: &mut PgConnection, second: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let take = || sqlx::query(include_str!("sql/take_append_lock.sql"));
    let mut holder = first.begin().await?;
    sqlx::query("SET LOCAL lock_timeout = '1s'").execute(&mut *holder).await?;
    match take().execute(&mut *holder).await {
        Ok(_) => {}
        // Another session appends in a long transaction; that the append lock keeps this one out proves it too.
        Err(cause) if error::is_lock_timeout(&cause) => return holder.rollback().await.map(|()| true),
        Err(cause) => return Err(cause),
    }
    let mut rival = second.begin().await?;
    sqlx::query("SET LOCAL lock_timeout = '1ms'").execute(&mut *rival).await?;
    let held = match take().execute(&mut *rival).await {
        Ok(_) => false,
        Err(cause) if error::is_lock_timeout(&cause) => true,
        Err(cause) => return Err(cause),
    };
    rival.rollback().await?;
    holder.rollback().await?;
    Ok(held)
}
