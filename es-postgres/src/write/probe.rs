//! How long an append takes, without one.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::{
    guard::Guarded,
    session::{self, Session},
};

/// Probes on a connection of their own: they wait for no other statement of this process.
pub(crate) struct Probe {
    session: Session,
    connection: Mutex<Connection>,
}

enum Connection {
    Idle(Guarded),
    /// None is open, or it is in use. One that is dropped in the middle of a statement is not used again.
    Absent,
    Closed,
}

impl Probe {
    pub(crate) fn new(session: Session) -> Self {
        Self { session, connection: Mutex::new(Connection::Absent) }
    }

    /// The time for the turn and for the commit.
    pub(crate) async fn take(&self) -> Result<Duration, sqlx::Error> {
        let limit = self.session.answer_within();
        let mut place = self.connection.lock().await;
        let mut connection = match std::mem::replace(&mut *place, Connection::Absent) {
            Connection::Idle(connection) => connection,
            Connection::Absent => self.session.open_within(limit).await?,
            Connection::Closed => {
                *place = Connection::Closed;
                return Err(sqlx::Error::PoolClosed);
            }
        };
        let probe = async {
            let began = Instant::now();
            connection.rows(sqlx::query(include_str!("../sql/probe_turn.sql"))).await?;
            connection.rows(sqlx::query(include_str!("../sql/probe_commit.sql"))).await?;
            Ok(began.elapsed())
        };
        let took = tokio::time::timeout(limit, probe).await;
        let took = took.unwrap_or_else(|_| Err(session::timed_out("the server did not answer in time")))?;
        *place = Connection::Idle(connection);
        Ok(took)
    }

    /// Lets the probe in flight finish and closes the connection, within `limit`. Later probes fail.
    pub(crate) async fn close(&self, limit: Duration) {
        let close = async {
            let mut place = self.connection.lock().await;
            if let Connection::Idle(connection) = std::mem::replace(&mut *place, Connection::Closed) {
                let _ = connection.close().await;
            }
        };
        // Best effort: nothing depends on a probe, and the server notices the end of the connection by itself.
        let _ = tokio::time::timeout(limit, close).await;
    }
}
