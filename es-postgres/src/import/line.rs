//! One chunk, one transaction.

use std::time::Duration;

use es_core::Position;
use sqlx::{Connection, Row};
use tokio::sync::Mutex;

use super::{
    chunk::Chunk,
    outcome::{ImportFailure, ImportProgress},
    streams::Versions,
};
use crate::{
    error::{self, Fault},
    guard::Guarded,
    session::{self, Session},
};

/// How much of a chunk is handed to the driver at once; it makes a copy.
const PIECE_BYTES: usize = 128 * 1024;

/// The connection of a store's imports. Their chunks are written one at a time, as the append lock would have it
/// anyway.
pub(crate) struct Line {
    session: Session,
    /// How long a chunk may wait for the append lock.
    patience: Duration,
    place: Mutex<Place>,
}

enum Place {
    Open(Option<Guarded>),
    Closed,
}

impl Line {
    pub(crate) fn new(session: Session, patience: Duration) -> Self {
        Self { session, patience, place: Mutex::new(Place::Open(None)) }
    }

    /// Waits for the chunk that is being written, though not longer than `limit`, and returns whether it has ended. Later chunks
    /// are not written any more.
    pub(crate) async fn close(&self, limit: Duration) -> bool {
        let closed = async {
            if let Place::Open(Some(connection)) = std::mem::replace(&mut *self.place.lock().await, Place::Closed) {
                let _ = connection.close().await;
            }
        };
        tokio::time::timeout(limit, closed).await.is_ok()
    }

    /// Gives the connection back to the server when an import is over.
    pub(super) async fn rest(&self) {
        if let Place::Open(connection) = &mut *self.place.lock().await
            && let Some(connection) = connection.take()
        {
            let _ = tokio::time::timeout(self.session.answer_within(), connection.close()).await;
        }
    }

    /// Writes `chunk` after what the import `name` has written so far.
    ///
    /// A failure, or dropping this future, also drops the connection: then the server rolls
    /// back and gives the append lock to the next, unless it has opened to commit.
    pub(super) async fn write(
        &self,
        name: &str,
        so_far: &ImportProgress,
        chunk: &mut Chunk,
        versions: &mut Versions,
    ) -> Result<Position, ImportFailure> {
        let mut place = self.place.lock().await;
        let Place::Open(idle) = &mut *place else { return Err(ImportFailure::Closed) };
        let mut connection = match idle.take() {
            Some(connection) => connection,
            None => self.session.open_import(self.patience).await.map_err(failed)?,
        };
        let mut committing = false;
        let writing = transaction(&mut connection, name, so_far, chunk, versions, &mut committing);
        let within = self.patience.saturating_add(session::BATCH_WITHIN * 2);
        let outcome = tokio::time::timeout(within, writing).await;
        match outcome.unwrap_or_else(|_| Err(failed(session::timed_out("the server did not answer in time")))) {
            Ok(position) => {
                *idle = Some(connection);
                Ok(position)
            }
            Err(ImportFailure::Store(cause)) if committing => Err(ImportFailure::Unknown(cause)),
            Err(failure) => Err(failure),
        }
    }
}

async fn transaction(
    connection: &mut Guarded,
    name: &str,
    so_far: &ImportProgress,
    chunk: &mut Chunk,
    versions: &mut Versions,
    committing: &mut bool,
) -> Result<Position, ImportFailure> {
    let from = i64::try_from(so_far.events).unwrap_or(i64::MAX);
    let Guarded { connection, guard, .. } = connection;
    let mut transaction = connection.begin().await.map_err(failed)?;
    let opening = sqlx::query(include_str!("../sql/begin_import_chunk.sql"))
        .bind(name)
        .bind(from)
        .bind(i64::try_from(chunk.events()).unwrap_or(i64::MAX))
        .bind(chunk.last().map(|last| last.event_id))
        .bind(versions.known_up_to(&chunk.streams))
        .bind(chunk.last().map(|last| last.recorded_at));
    let opened = guard.query(opening).map_err(failed)?.fetch_one(&mut *transaction).await.map_err(failed)?;
    let imported: i64 = opened.try_get(0).map_err(failed)?;
    if imported != from {
        return Err(ImportFailure::Overtaken { imported: u64::try_from(imported).unwrap_or(0) });
    }
    let head: i64 = opened.try_get(1).map_err(failed)?;
    let others: Option<Vec<String>> = opened.try_get(2).map_err(failed)?;
    let theirs: Option<Vec<i64>> = opened.try_get(3).map_err(failed)?;
    let others = others.into_iter().flatten().zip(theirs.into_iter().flatten());
    let current = versions.learn(&mut chunk.streams, others);
    let (rows, position) = chunk.number(head, current).map_err(|_| ImportFailure::Full)?;
    let mut copy = transaction.copy_in_raw(include_str!("../sql/copy_events.sql")).await.map_err(failed)?;
    for piece in rows.chunks(PIECE_BYTES) {
        copy.send(piece).await.map_err(failed)?;
    }
    copy.finish().await.map_err(failed)?;
    let (events, names, tags) = chunk.tags();
    if !tags.is_empty() {
        let insert = sqlx::query(include_str!("../sql/import_tags.sql")).bind(head).bind(events).bind(names).bind(tags);
        guard.query(insert).map_err(failed)?.execute(&mut *transaction).await.map_err(failed)?;
    }
    let here = guard.query(sqlx::query(include_str!("../sql/still_here.sql"))).map_err(failed)?;
    here.execute(&mut *transaction).await.map_err(failed)?;
    *committing = true;
    transaction.commit().await.map_err(failed)?;
    versions.go_on(position);
    Ok(Position::from_i64(position))
}

fn failed(cause: sqlx::Error) -> ImportFailure {
    match error::fault(&cause) {
        Fault::Refused => ImportFailure::Refused(cause.into()),
        Fault::Busy | Fault::Lost | Fault::Fatal => ImportFailure::Store(cause.into()),
    }
}
