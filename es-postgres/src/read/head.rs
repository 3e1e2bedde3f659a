//! How far the log has come, as this process knows.

use std::{convert::Infallible, time::Duration};

use es_core::{Backoff, Position, ReadError, backend::KnownHead};
use sqlx::Row;
use tokio::sync::Mutex;

use crate::{connections::Connections, error};

/// How often other processes' news are looked for: at first, and after a long silence.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(100));

/// The last position that this process knows of.
pub(crate) struct Head {
    schema: String,
    pub(crate) known: KnownHead,
    /// How often the task that polls for other processes' news has found none; held while polling.
    silence: Mutex<u32>,
}

impl Head {
    pub(crate) fn new(schema: String, known: KnownHead) -> Self {
        Self { schema, known, silence: Mutex::new(0) }
    }

    /// Asks the server.
    pub(crate) async fn ask(&self, connections: &Connections) -> Result<Position, ReadError> {
        let before = self.known.get();
        let rows = connections.read(|| sqlx::query(include_str!("../sql/head.sql"))).await.map_err(error::read)?;
        let head = rows.first().map_or(Ok(0), |row| row.try_get(0)).map_err(error::read)?;
        let head = Position::from_i64(head);
        self.correct(before, head);
        self.known.raise(head);
        Ok(head)
    }

    /// This process's own news come through the watch at once; those of other processes are polled for.
    /// There is no `NOTIFY`: its lock at commit would make all commits of the cluster serial.
    ///
    /// When a failover or a restore has lost the tail, this returns too early once; the read that follows lowers the head.
    pub(crate) async fn wait_past(&self, connections: &Connections, after: Position) -> Result<(), ReadError> {
        tokio::select! {
            biased;
            () = self.known.past(after) => Ok(()),
            failed = self.poll(connections) => failed.map(|never| match never {}),
        }
    }

    /// Looks for other processes' news until it is dropped. One task at a time does, for all waiters of the
    /// process; when it leaves, because its news have come or its future is dropped, the next takes over.
    async fn poll(&self, connections: &Connections) -> Result<Infallible, ReadError> {
        let mut silence = self.silence.lock().await;
        loop {
            let before = self.known.get();
            let is_news = self.ask(connections).await? > before;
            *silence = if is_news { 1 } else { silence.saturating_add(1) };
            tokio::time::sleep(PAUSES.longest(*silence)).await;
        }
    }

    /// Notes that the log ended at `end` when it was read, and that this process knew of `before` when it asked.
    pub(crate) fn correct(&self, before: Position, end: Position) {
        if self.known.lower(before, end) {
            let (before, end) = (before.get(), end.get());
            tracing::warn!(schema = self.schema, before, end, "the log is shorter than it was: its tail was lost");
        }
    }
}
