//! A few connections for everything but the writer. Not a pool of the driver: that one sends a ping
//! on checkout and another on return, which costs as much as the work (5.6k against 10.3k a second).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use sqlx::{
    Connection, PgConnection, Postgres,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{error, session::Session};

/// At most so many connections at once; further callers wait.
pub(crate) struct Connections {
    session: Session,
    places: Arc<Semaphore>,
    idle: Arc<Mutex<VecDeque<PgConnection>>>,
}

impl Connections {
    pub(crate) fn new(session: Session, most: usize) -> Self {
        Self { session, places: Arc::new(Semaphore::new(most)), idle: Arc::default() }
    }

    /// All rows of a read. A read has no effect, so if it fails on a connection that has been idle
    /// (the server was restarted meanwhile), it is made again on a fresh one.
    pub(crate) async fn read<'q>(
        &self,
        query: impl Fn() -> Query<'q, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let mut connection = self.take().await?;
        let was_idle = connection.was_idle;
        let outcome = query().fetch_all(&mut connection.connection).await;
        match connection.give_back(outcome) {
            Err(cause) if was_idle && error::is_broken(&cause) => {
                let mut connection = self.take().await?;
                let outcome = query().fetch_all(&mut connection.connection).await;
                connection.give_back(outcome)
            }
            outcome => outcome,
        }
    }

    /// All rows that a write returns. The commit comes after the last row and even after the
    /// completion tag; only `fetch_all` waits for both, so nothing here may use `fetch_one`.
    pub(crate) async fn write(&self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, sqlx::Error> {
        let mut connection = self.take().await?;
        let outcome = query.fetch_all(&mut connection.connection).await;
        connection.give_back(outcome)
    }

    /// How many rows a write has touched.
    pub(crate) async fn execute(&self, query: Query<'_, Postgres, PgArguments>) -> Result<u64, sqlx::Error> {
        let mut connection = self.take().await?;
        let outcome = query.execute(&mut connection.connection).await;
        connection.give_back(outcome).map(|done| done.rows_affected())
    }

    async fn take(&self) -> Result<Taken, sqlx::Error> {
        let place = self.places.clone().acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let idle = lock(&self.idle).pop_back();
        let was_idle = idle.is_some();
        let connection = match idle {
            Some(connection) => connection,
            None => self.session.open().await?,
        };
        Ok(Taken { connection, was_idle, places: self.places.clone(), idle: self.idle.clone(), _place: place })
    }

    /// Lets nobody take a connection any more, and closes those that come back within `limit`.
    pub(crate) async fn close(&self, most: usize, limit: Duration) {
        // Once all places are ours, all connections are back.
        let all = self.places.acquire_many(u32::try_from(most).unwrap_or(u32::MAX));
        let held = tokio::time::timeout(limit, all).await;
        self.places.close();
        drop(held);
        let idle = std::mem::take(&mut *lock(&self.idle));
        for connection in idle {
            let _ = tokio::time::timeout(limit, connection.close()).await;
        }
    }
}

/// A connection in use. Dropped in the middle of a query it is gone: whatever the server still
/// answers would belong to the next query.
struct Taken {
    connection: PgConnection,
    was_idle: bool,
    places: Arc<Semaphore>,
    idle: Arc<Mutex<VecDeque<PgConnection>>>,
    _place: OwnedSemaphorePermit,
}

impl Taken {
    fn give_back<T>(self, outcome: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        match &outcome {
            // What broke one has most likely broken all.
            Err(cause) if error::is_broken(cause) => lock(&self.idle).clear(),
            // The store was closed meanwhile.
            _ if self.places.is_closed() => {}
            _ => lock(&self.idle).push_back(self.connection),
        }
        outcome
    }
}

fn lock(idle: &Mutex<VecDeque<PgConnection>>) -> MutexGuard<'_, VecDeque<PgConnection>> {
    idle.lock().expect("nothing panics while it holds the lock")
}
