//! `EventStore`: appends go through the queue, reads use connections of their own.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use es_core::{
    Append, AppendError, Appended, EventQuery, EventStore, IdempotencyKey, Position, ReadError, RecordedEvent,
    StreamId, Version,
    backend::{CommandRecord, KnownHead, check_contiguous, command_id},
};

use crate::{
    SqliteStore, batch,
    connections::Connections,
    error::Failure,
    packed::{self, json},
    queue::Prepared,
    rows,
};

#[async_trait]
impl EventStore for SqliteStore {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let appended = async { self.queue().append(Prepared::new(vec![append])?).await };
        self.meter().measure(appended).await.map(|appended| appended[0])
    }

    async fn append_together(&self, appends: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        let appended = async { self.queue().append(Prepared::new(appends)?).await };
        self.meter().measure(appended).await
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let binds = (stream.as_str().to_owned(), after.to_i64(), rows_limit(limit));
        self.page(include_str!("sql/read_stream.sql"), binds).await
    }

    async fn read_log(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, ReadError> {
        let events = self.page(include_str!("sql/read_log.sql"), (after.to_i64(), rows_limit(limit))).await?;
        check_contiguous(after, &events)?;
        Ok(events)
    }

    async fn read_matching(
        &self,
        query: &EventQuery,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        query.validate()?;
        let (sql, wanted) = match query.only_tag() {
            Some(tag) => (include_str!("sql/read_tagged.sql"), tag.as_str().to_owned()),
            None => (include_str!("sql/read_matching.sql"), json(&packed::items(query))),
        };
        self.page(sql, (wanted, after.to_i64(), rows_limit(limit))).await
    }

    async fn head(&self) -> Result<Position, ReadError> {
        head(self.connections()).await
    }

    async fn wait_past(&self, after: Position) -> Result<(), ReadError> {
        let head = self.head_of_this_process();
        // Closing the store wakes no caller, but the next look fails.
        let look = || look(self.connections().clone(), head.clone());
        // No read of this store lowers the head.
        if head.get() > after {
            look().await?;
        }
        head.past_looking(after, look).await
    }

    async fn find_command(&self, stream: &StreamId, key: &IdempotencyKey) -> Result<Option<CommandRecord>, ReadError> {
        let query = sqlx::query(include_str!("sql/find_command.sql")).bind(command_id(stream, key));
        let mut reader = self.connections().reader().await?;
        let row = query.fetch_optional(reader.connection()).await.map_err(Failure::from)?;
        reader.give_back();
        Ok(row.as_ref().map(rows::command).transpose().map_err(Failure::from)?)
    }

    /// It waits for its turn in this process, for the write lock of the file, and for a sync of the disk.
    async fn probe(&self) -> Result<Duration, ReadError> {
        let began = Instant::now();
        let write = sqlx::query(include_str!("sql/probe.sql"));
        self.connections().write(|connection| Box::pin(async { write.execute(connection).await.map(drop) })).await?;
        Ok(began.elapsed())
    }

    async fn now(&self) -> Result<DateTime<Utc>, ReadError> {
        Ok(batch::now())
    }
}

async fn head(connections: &Connections) -> Result<Position, ReadError> {
    let mut reader = connections.reader().await?;
    let head = rows::head(reader.connection()).await.map_err(Failure::from)?;
    reader.give_back();
    Ok(head)
}

/// Looks for what other processes have appended.
async fn look(connections: Arc<Connections>, known: KnownHead) -> Result<(), ReadError> {
    let before = known.get();
    let end = head(&connections).await?;
    // A restore may have removed what this process appended.
    if known.lower(before, end) {
        tracing::warn!(known = %before, %end, "the log is shorter than it was: the file was restored");
    }
    known.raise(end);
    Ok(())
}

impl SqliteStore {
    async fn page(
        &self,
        sql: &'static str,
        binds: impl rusqlite::Params + Send + 'static,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let page = self.connections().read_in_place(move |connection| {
            let mut statement = connection.prepare_cached(sql).map_err(Failure::from)?;
            rows::page(statement.query(binds).map_err(Failure::from)?)
        });
        page.await
    }
}

/// A limit for SQL, where a negative number would mean no limit.
pub(crate) fn rows_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
