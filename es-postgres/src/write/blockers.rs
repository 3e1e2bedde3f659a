//! Tells who holds up the appends.
//!
//! The append lock is an advisory lock, which any role of the database may take (`pg_advisory_lock(25971, …)`), and a transaction that
//! calls `append_in` and does not end holds it as well. The writer waits, and only the server knows for whom.

use std::time::Duration;

use sqlx::Row;

use crate::session::Session;

/// How long a batch may take before it is asked why.
pub(crate) const SLOW: Duration = Duration::from_secs(1);

/// Reports the sessions for whose locks the session with the process `waiting` waits, if it does.
pub(crate) async fn report(session: Session, waiting: i32) {
    let asked = async {
        let mut connection = session.open_within(session.answer_within()).await?;
        let rows = connection.rows(sqlx::query(include_str!("../sql/blockers.sql")).bind(waiting)).await?;
        // Best effort: it has done its work.
        let _ = connection.close().await;
        for row in &rows {
            let pid: i32 = row.try_get(0)?;
            let (application, role): (&str, &str) = (row.try_get(1)?, row.try_get(2)?);
            let since: Option<&str> = row.try_get(3)?;
            let since = since.unwrap_or("unknown");
            tracing::warn!(
                schema = session.schema(),
                pid,
                application,
                role,
                since,
                "appends wait for a lock that another session of the database holds"
            );
        }
        Ok::<_, sqlx::Error>(())
    };
    if let Err(cause) = asked.await {
        tracing::debug!(schema = session.schema(), error = %cause, "cannot find out what appends wait for");
    }
}
