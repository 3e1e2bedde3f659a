//! How far the log has come, as this process knows.

use std::sync::Arc;

use es_core::{Position, ReadError, backend::KnownHead};
use sqlx::Row;

use crate::{connections::Connections, error, read::sizes::Sizes};

/// The last position that this process knows of. Clones share it.
#[derive(Clone)]
pub(crate) struct Head {
    schema: Arc<str>,
    pub(crate) known: KnownHead,
    /// Of the events before it.
    pub(crate) sizes: Arc<Sizes>,
}

impl Head {
    pub(crate) fn new(schema: String, known: KnownHead) -> Self {
        Self { schema: schema.into(), known, sizes: Arc::default() }
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
    pub(crate) async fn wait_past(&self, connections: &Arc<Connections>, after: Position) -> Result<(), ReadError> {
        let look = || {
            let (head, connections) = (self.clone(), connections.clone());
            async move { head.ask(&connections).await.map(drop) }
        };
        self.known.past_looking(after, look).await
    }

    /// Notes that the log ended at `end` when it was read, and that this process knew of `before` when it asked.
    pub(crate) fn correct(&self, before: Position, end: Position) {
        if self.known.lower(before, end) {
            let (before, end) = (before.get(), end.get());
            tracing::warn!(schema = &*self.schema, before, end, "the log is shorter than it was: its tail was lost");
        }
    }
}
