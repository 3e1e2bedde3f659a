//! Transactions of several statements.

use std::time::Duration;

use sqlx::AssertSqlSafe;

use crate::{error, guard::Guarded, session};

/// Begins a transaction that [`end`] ends. If no statement comes for so long, the server ends it: a process that is frozen in the middle
/// must not keep a lock for longer than others are patient.
pub(crate) async fn begin(connection: &mut Guarded, idle_within: Duration) -> Result<(), sqlx::Error> {
    let limit = session::milliseconds(Some(idle_within));
    let begin = format!("BEGIN; SET LOCAL idle_in_transaction_session_timeout TO {limit}");
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut connection.connection).await.map(drop)
}

/// Commits what was done, or takes it back.
pub(crate) async fn end<T, E>(
    connection: &mut Guarded,
    done: Result<Result<T, E>, sqlx::Error>,
) -> Result<Result<T, E>, sqlx::Error> {
    let end = if matches!(done, Ok(Ok(_))) { "COMMIT" } else { "ROLLBACK" };
    match (sqlx::raw_sql(end).execute(&mut connection.connection).await, done) {
        (Ok(_), done) => done,
        // The connection may still be in the transaction.
        (Err(cause), Ok(_)) => Err(cause),
        (Err(cause), Err(first)) => Err(if error::is_broken(&first) { first } else { cause }),
    }
}
