//! What the database says, in words of the ports. The only place that knows SQLSTATEs and names of
//! constraints.

use std::sync::Arc;

use es_core::{
    AppendError, ReadError,
    backend::{BoxError, ReadModelError, SnapshotError, StoreMoved, counted},
};
use sqlx::error::DatabaseError;

/// What to do about a failed append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The server refuses an event; the other appends of the batch can be written.
    Refused,
    /// No event is refused: the same statement may succeed later, on the same connection.
    Busy,
    /// The connection is gone, and with it the answer: whether the statement was committed is unknown.
    Lost,
    /// The store itself is damaged or forbidden: sending it again does not help.
    Fatal,
}

pub(crate) fn fault(error: &sqlx::Error) -> Fault {
    match error {
        sqlx::Error::Database(database) => fault_of_database(&**database),
        sqlx::Error::Encode(_) => Fault::Refused,
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) => Fault::Lost,
        _ => Fault::Fatal,
    }
}

fn fault_of_database(error: &dyn DatabaseError) -> Fault {
    let code = error.code().unwrap_or_default();
    match (&*code, code.get(..2).unwrap_or_default()) {
        // Another session has written to the log without the append lock, or this snapshot is old: look again.
        ("23505", _) if is_ours(error) => Fault::Busy,
        // Data, constraints, limits; and what a trigger of the application raises.
        (_, "22" | "23" | "54") | ("P0001", _) => Fault::Refused,
        // Cancelled or not available in time; serialization and deadlock; out of resources.
        ("57014" | "55P03", _) | (_, "40" | "53") => Fault::Busy,
        // Shut down or terminated, for idling or for a transaction's time; connection trouble; the server has become a
        // read-only replica; this is not the session that was opened, or not the one that has prepared the statement.
        ("25006" | "25P03" | "25P04" | "ES002" | "26000" | "42P05", _) | (_, "57" | "08") => Fault::Lost,
        _ => Fault::Fatal,
    }
}

/// Whether one of the constraints is violated that only a stale snapshot can violate.
fn is_ours(error: &dyn DatabaseError) -> bool {
    matches!(error.constraint(), Some("events_position" | "events_version" | "commands_id"))
}

/// Whether another session's event stands in the place of one of ours.
pub(crate) fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(is_ours)
}

/// Whether a lock was not given in the time allowed.
pub(crate) fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(DatabaseError::code).as_deref() == Some("55P03")
}

/// Whether this role has not the right to do that.
pub(crate) fn is_forbidden(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(DatabaseError::code).as_deref() == Some("42501")
}

/// Whether there is no such table.
pub(crate) fn is_missing(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(DatabaseError::code).as_deref() == Some("42P01")
}

/// Whether what a statement names is not there: the schema may have moved. A fresh connection tells.
pub(crate) fn is_elsewhere(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| matches!(&*code, "3F000" | "42P01" | "42883"))
}

/// Whether the connection that met `error` must not be used again.
pub(crate) fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(_) => fault(error) == Fault::Lost || is_elsewhere(error),
        // These arise before anything is sent or after everything has been received.
        sqlx::Error::Encode(_) | sqlx::Error::RowNotFound => false,
        _ => true,
    }
}

/// The same failure for every append of a batch.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the database did not take the batch in {}", counted(*attempts, "attempt"))]
pub struct OutcomeUnknown {
    /// How often it was sent.
    pub attempts: u32,
    /// Why the last attempt failed.
    #[source]
    pub last: Arc<sqlx::Error>,
}

impl OutcomeUnknown {
    /// Whether sending the same append again may help.
    pub fn is_transient(&self) -> bool {
        matches!(fault(&self.last), Fault::Busy | Fault::Lost)
    }
}

/// The transaction of an [`append_in`](crate::PostgresStore::append_in) looks at an older log than
/// the one there is, as under `REPEATABLE READ`; nothing was written. Begin it again.
#[derive(Debug, thiserror::Error)]
#[error("the transaction's snapshot is older than the log")]
pub struct StaleSnapshot(#[source] pub sqlx::Error);

impl StaleSnapshot {
    /// Whether it may help to begin the transaction again: it does.
    pub fn is_transient(&self) -> bool {
        true
    }
}

/// An append in the caller's own transaction would not be folded into the [inline](es_core::ServiceBuilder::inline) read models of this
/// process. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the inline read models {} are not folded in a transaction of the caller: append with the store", names.join(", "))]
pub struct InlineModelsMissed {
    /// Their names.
    pub names: Vec<&'static str>,
}

impl InlineModelsMissed {
    /// Whether trying again may help: it does not.
    pub fn is_transient(&self) -> bool {
        false
    }
}

/// The schema of this name is not the one in which the store was opened: it was renamed or dropped, or replaced by another
/// one. The store has written nothing there, and does not go on: open it again where its tables are now.
///
/// It is the source of what the ports return, in an [`es_core::backend::StoreMoved`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("schema {schema} is not the one in which the store was opened")]
pub struct SchemaMoved {
    /// The name by which it was opened.
    pub schema: String,
}

impl SchemaMoved {
    /// Whether trying again with this store may help: it does not.
    pub fn is_transient(&self) -> bool {
        false
    }
}

/// Why a store did not close cleanly. What was acknowledged is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    /// Work in flight did not end in time and was abandoned. The outcome of its writes is unknown.
    #[error("the work in flight did not end in time")]
    Unfinished,
}

impl CloseError {
    /// Whether closing it again may help: it does not, the store is closed.
    pub fn is_transient(&self) -> bool {
        false
    }
}

/// The writer was stopped before it answered.
#[derive(Debug, thiserror::Error)]
#[error("the store was closed before the writer answered")]
pub(crate) struct Stopped;

/// The database answered an append with something that has no meaning: the functions in the schema are not those that this
/// version of the crate has put there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnexpectedAnswer {
    /// A status of an append that is none.
    #[error("the database answered an append with status {0}, which has no meaning")]
    Status(i32),
    /// No answer for an append of the batch.
    #[error("the database did not answer for each append of the batch")]
    Missing,
}

impl UnexpectedAnswer {
    /// Whether sending the same append again may help: it does not.
    pub fn is_transient(&self) -> bool {
        false
    }
}

impl From<UnexpectedAnswer> for sqlx::Error {
    fn from(answer: UnexpectedAnswer) -> Self {
        Self::Decode(answer.into())
    }
}

impl From<UnexpectedAnswer> for AppendError {
    fn from(answer: UnexpectedAnswer) -> Self {
        Self::Store(answer.into())
    }
}

pub(crate) fn append_in(error: sqlx::Error, schema: &str) -> AppendError {
    match &error {
        _ if is_taken(&error) => AppendError::Store(StaleSnapshot(error).into()),
        _ if is_refused_session(&error) || is_elsewhere(&error) => {
            AppendError::Store(StoreMoved(SchemaMoved { schema: schema.to_owned() }.into()).into())
        }
        _ if fault(&error) == Fault::Refused => AppendError::Refused(error.into()),
        _ => AppendError::Store(error.into()),
    }
}

fn is_refused_session(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(DatabaseError::code).as_deref() == Some("ES002")
}

/// The cause as the ports have it.
pub(crate) fn store(error: sqlx::Error) -> BoxError {
    match error {
        sqlx::Error::Configuration(cause) if cause.is::<SchemaMoved>() => StoreMoved(cause).into(),
        error => error.into(),
    }
}

pub(crate) fn read(error: sqlx::Error) -> ReadError {
    ReadError::Store(store(error))
}

pub(crate) fn snapshot(error: sqlx::Error) -> SnapshotError {
    SnapshotError(store(error))
}

pub(crate) fn read_model(error: sqlx::Error) -> ReadModelError {
    ReadModelError(store(error))
}
