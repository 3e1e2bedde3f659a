//! A few connections for everything but the writer. Not a pool of the driver: that one sends a ping
//! on checkout and another on return, which costs as much as the work (5.6k against 10.3k a second).

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use es_core::backend::is_of_engine;
use sqlx::{
    Postgres, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    error,
    guard::Guarded,
    session::{self, Session},
};

/// How many documents one statement of a sweep deletes.
const SWEEP_DOCUMENTS: i64 = 10_000;

/// How long it may take.
const SWEEP_WITHIN: Duration = Duration::from_mins(1);

/// How often a timer goes off while a store is open.
///
/// tokio wakes the thread that waits for events when a timer is set which is due before all others, as the
/// limit of a lone statement is. With one that is always due sooner that never happens: loads of four
/// clients took 70 instead of 220 microseconds.
const HEARTBEAT: Duration = Duration::from_millis(250);

/// At most so many connections at once, and one more for engines; further callers wait. Nothing here lasts longer than its limit,
/// the wait for a connection included: a peer that vanished without a word never answers, and TCP itself
/// notices after hours or, on a connection that only listens, never (R16).
pub(crate) struct Connections {
    session: Session,
    places: Arc<Semaphore>,
    /// One more, for engines alone: callers may have all others for long.
    of_engines: Arc<Semaphore>,
    idle: Arc<Mutex<VecDeque<Guarded>>>,
}

impl Connections {
    pub(crate) fn new(session: Session, most: usize) -> Self {
        let places = Arc::new(Semaphore::new(most));
        let watched = Arc::downgrade(&places);
        tokio::spawn(async move {
            while watched.upgrade().is_some_and(|places| !places.is_closed()) {
                tokio::time::sleep(HEARTBEAT).await;
            }
        });
        Self { session, places, of_engines: Arc::new(Semaphore::new(1)), idle: Arc::default() }
    }

    /// How long an answer may take.
    pub(crate) fn answer_within(&self) -> Duration {
        self.session.answer_within()
    }

    /// All rows of a read.
    pub(crate) async fn read<'q>(
        &self,
        query: impl Fn() -> Query<'q, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        self.read_first(query, usize::MAX, |_| 0).await.map(|(rows, _)| rows)
    }

    /// [`Guarded::first_rows`]. A read has no effect, so if it fails on a connection that has been idle (the server was
    /// restarted meanwhile), it is made again on a fresh one.
    pub(crate) async fn read_first<'q>(
        &self,
        query: impl Fn() -> Query<'q, Postgres, PgArguments>,
        budget: usize,
        bytes: fn(&PgRow) -> usize,
    ) -> Result<(Vec<PgRow>, bool), sqlx::Error> {
        let read = async {
            let mut connection = self.take().await?;
            let was_idle = connection.was_idle;
            let outcome = connection.connection.first_rows(query(), budget, bytes).await;
            match connection.give_back(outcome) {
                Err(cause) if was_idle && error::is_broken(&cause) => {
                    let mut connection = self.take().await?;
                    let outcome = connection.connection.first_rows(query(), budget, bytes).await;
                    connection.give_back(outcome)
                }
                outcome => outcome,
            }
        };
        self.within(self.session.answer_within(), read).await
    }

    /// What `take` makes of the pieces of a [`Guarded::copy`], with a second attempt as [`read_first`](Self::read_first) makes one.
    /// The connection is closed where it does not want all of them.
    pub(crate) async fn copy<T: Default>(
        &self,
        template: &str,
        parameters: &[i64],
        take: impl Fn(&mut T, Bytes) -> ControlFlow<()>,
    ) -> Result<T, sqlx::Error> {
        let copy = async {
            loop {
                let (mut taken, mut made) = (self.take().await?, T::default());
                match taken.connection.copy(template, parameters, |piece| take(&mut made, piece)).await {
                    Ok(true) => return taken.give_back(Ok(made)),
                    Ok(false) => return Ok(made),
                    Err(cause) if error::is_broken(&cause) => {
                        lock(&self.idle).clear();
                        if !taken.was_idle {
                            return Err(cause);
                        }
                    }
                    Err(cause) => return Err(cause),
                }
            }
        };
        self.within(self.session.answer_within(), copy).await
    }

    /// All rows that a write returns. The commit comes after the last row and even after the
    /// completion tag; only `fetch_all` waits for both, so nothing here may use `fetch_one`.
    pub(crate) async fn write(&self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, sqlx::Error> {
        let write = async {
            let mut connection = self.take().await?;
            let outcome = connection.connection.rows(query).await;
            connection.give_back(outcome)
        };
        self.within(self.session.answer_within(), write).await
    }

    /// How many rows a write has touched.
    pub(crate) async fn execute(&self, query: Query<'_, Postgres, PgArguments>) -> Result<u64, sqlx::Error> {
        let write = async {
            let mut connection = self.take().await?;
            let outcome = connection.connection.execute(query).await;
            connection.give_back(outcome)
        };
        self.within(self.session.answer_within(), write).await
    }

    /// Deletes what retired generations have left, some documents at a time: between two of its statements others get the
    /// place of its connection.
    ///
    /// That is one of its own, since the sessions of the others end a statement far earlier.
    pub(crate) async fn sweep(&self) -> Result<(), sqlx::Error> {
        let mut connection = None;
        let (mut generation, mut key) = (0_i64, String::new());
        loop {
            let some = async {
                let _place = self.place().await?;
                let connection = match &mut connection {
                    Some(connection) => connection,
                    none => none.insert(self.session.open_within(SWEEP_WITHIN).await?),
                };
                let sweep = sqlx::query(include_str!("sql/sweep.sql"));
                connection.rows(sweep.bind(generation).bind(&key).bind(SWEEP_DOCUMENTS)).await
            };
            let rows = self.within(SWEEP_WITHIN, some).await?;
            let Some(next) = rows.first() else { break };
            (generation, key) = (next.try_get(0)?, next.try_get(1)?);
        }
        if let Some(connection) = connection {
            // Best effort: it has done its work.
            let _ = self.within(self.session.answer_within(), connection.close()).await;
        }
        Ok(())
    }

    /// The outcome of `work`, which is dropped after `limit`, and with it the connection that it uses:
    /// an answer that comes later must not reach anybody else.
    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            // The peer that does not answer on one is most likely gone for all.
            lock(&self.idle).clear();
            Err(session::timed_out("the server did not answer in time"))
        })
    }

    /// Gives back a connection on which an application's statements were committed, without what they have set there. The connection
    /// is closed where that cannot be taken back.
    pub(crate) async fn restore(&self, mut taken: Taken) {
        let restore = self.session.restore(&mut taken.connection);
        let restored = self.within(self.session.answer_within(), restore).await;
        // The work is committed, whatever becomes of the connection.
        if let Err(cause) = restored.and_then(|()| taken.give_back(Ok(()))) {
            tracing::debug!(error = &cause as &dyn std::error::Error, "a connection is closed");
        }
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, sqlx::Error> {
        self.places.clone().acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)
    }

    /// That of engines, if it is free first.
    async fn place_of_engine(&self) -> Result<OwnedSemaphorePermit, sqlx::Error> {
        tokio::select! {
            biased;
            place = self.place() => place,
            place = self.of_engines.clone().acquire_owned() => place.map_err(|_| sqlx::Error::PoolClosed),
        }
    }

    pub(crate) async fn take(&self) -> Result<Taken, sqlx::Error> {
        self.take_one(is_of_engine(), |_| true).await
    }

    /// A connection for as long as a caller wants it: never that of engines.
    pub(crate) async fn lend(&self) -> Result<Taken, sqlx::Error> {
        self.take_one(false, |_| true).await
    }

    /// A connection that has worked with no tables but those of `generation`. Types that its migrations make have other oids in
    /// each generation, and the driver asks for the oid of a name once.
    pub(crate) async fn take_for(&self, generation: i64) -> Result<Taken, sqlx::Error> {
        let suits = |connection: &Guarded| connection.tables_of.is_none_or(|other| other == generation);
        let mut taken = self.take_one(is_of_engine(), suits).await?;
        taken.connection.tables_of = Some(generation);
        Ok(taken)
    }

    async fn take_one(&self, of_engine: bool, suits: impl Fn(&Guarded) -> bool + Send) -> Result<Taken, sqlx::Error> {
        // Boxed, since the others do not need its room.
        let place = if of_engine { Box::pin(self.place_of_engine()).await? } else { self.place().await? };
        let idle = {
            let mut idle = lock(&self.idle);
            match idle.iter().rposition(suits) {
                Some(nth) => idle.remove(nth),
                // A fresh one takes the place of another one.
                None => idle.pop_front().and(None),
            }
        };
        let was_idle = idle.is_some();
        let connection = match idle {
            Some(connection) => connection,
            None => self.session.open_within(self.session.answer_within()).await?,
        };
        Ok(Taken { connection, was_idle, places: self.places.clone(), idle: self.idle.clone(), _place: place })
    }

    /// Gives out no connection any more, closes those that come back within `limit`, and returns whether all have come back.
    pub(crate) async fn close(&self, most: usize, limit: Duration) -> bool {
        // Once all places are ours, all connections are back.
        let all = async {
            let of_engines = self.of_engines.acquire().await;
            (self.places.acquire_many(u32::try_from(most).unwrap_or(u32::MAX)).await, of_engines)
        };
        let held = tokio::time::timeout(limit, all).await;
        let all_are_back = held.is_ok();
        self.places.close();
        self.of_engines.close();
        drop(held);
        let idle = std::mem::take(&mut *lock(&self.idle));
        let farewell = async {
            for connection in idle {
                let _ = connection.close().await;
            }
        };
        // One limit for all: a peer that does not take the farewell of one takes none.
        let _ = tokio::time::timeout(limit, farewell).await;
        all_are_back
    }
}

/// A connection in use. Dropped in the middle of a query it is gone: whatever the server still
/// answers would belong to the next query.
pub(crate) struct Taken {
    pub(crate) connection: Guarded,
    /// The server may have ended it meanwhile: then it is worth another attempt.
    pub(crate) was_idle: bool,
    places: Arc<Semaphore>,
    idle: Arc<Mutex<VecDeque<Guarded>>>,
    _place: OwnedSemaphorePermit,
}

impl Taken {
    pub(crate) fn give_back<T>(self, outcome: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
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

fn lock(idle: &Mutex<VecDeque<Guarded>>) -> MutexGuard<'_, VecDeque<Guarded>> {
    idle.lock().expect("nothing panics while it holds the lock")
}
