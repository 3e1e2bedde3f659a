//! How far the log has come, as this process knows.

use std::{convert::Infallible, time::Duration};

use es_core::{Position, ReadError};
use sqlx::Row;
use tokio::sync::{Mutex, watch};

use crate::{connections::Connections, error};

/// How often other processes' news are looked for: at first, and after a long silence.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The last position that this process knows of.
pub(crate) struct Head {
    schema: String,
    known: watch::Sender<Position>,
    /// How long the task that polls for other processes' news sleeps; held while polling.
    pause: Mutex<Duration>,
}

impl Head {
    pub(crate) fn new(schema: String, known: watch::Sender<Position>) -> Self {
        Self { schema, known, pause: Mutex::new(SHORTEST_PAUSE) }
    }

    /// What is known without asking.
    pub(crate) fn known(&self) -> Position {
        *self.known.borrow()
    }

    /// Asks the server.
    pub(crate) async fn ask(&self, connections: &Connections) -> Result<Position, ReadError> {
        let before = self.known();
        let rows = connections.read(|| sqlx::query(include_str!("../sql/head.sql"))).await.map_err(error::read)?;
        let head = rows.first().map_or(Ok(0), |row| row.try_get(0)).map_err(error::read)?;
        let head = Position::from_i64(head);
        self.correct(before, head);
        self.publish(head);
        Ok(head)
    }

    /// This process's own news come through the watch at once; those of other processes are polled for.
    /// There is no `NOTIFY`: its lock at commit would make all commits of the cluster serial.
    ///
    /// The watch may know more than the log holds, when a failover or a restore has lost the tail. Then
    /// this returns too early once; the read that follows lowers the watch.
    pub(crate) async fn wait_past(&self, connections: &Connections, after: Position) -> Result<(), ReadError> {
        let mut known = self.known.subscribe();
        tokio::select! {
            biased;
            // The sender lives as long as the store.
            _ = known.wait_for(|head| *head > after) => Ok(()),
            failed = self.poll(connections) => failed.map(|never| match never {}),
        }
    }

    /// Looks for other processes' news until it is dropped. One task at a time does, for all waiters of the
    /// process; when it leaves, because its news have come or its future is dropped, the next takes over.
    async fn poll(&self, connections: &Connections) -> Result<Infallible, ReadError> {
        let mut pause = self.pause.lock().await;
        loop {
            let before = self.known();
            if self.ask(connections).await? > before {
                *pause = SHORTEST_PAUSE;
            }
            tokio::time::sleep(*pause).await;
            *pause = (*pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Raises what is known to `position`.
    pub(crate) fn publish(&self, position: Position) {
        self.known.send_if_modified(|head| {
            let news = position > *head;
            *head = position.max(*head);
            news
        });
    }

    /// Notes that the log ended at `end` when it was read, and that this process knew of `before` when it asked.
    pub(crate) fn correct(&self, before: Position, end: Position) {
        if lower(&self.known, before, end) {
            let (before, end) = (before.get(), end.get());
            tracing::warn!(schema = self.schema, before, end, "the log is shorter than it was: its tail was lost");
        }
    }
}

/// Lowers the watch if the log ends before what was known when it was asked: what was committed then is
/// gone. A task that has raised the watch meanwhile knows better. One that has raised it to this very number again, after
/// another task had lowered it, raises it once more with the next look.
fn lower(head: &watch::Sender<Position>, before: Position, end: Position) -> bool {
    head.send_if_modified(|head| {
        let lost = end < before && *head == before;
        if lost {
            *head = end;
        }
        lost
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r3_a_look_at_the_log_does_not_take_back_what_was_appended_meanwhile() {
        let [three, five, six] = [3, 5, 6].map(Position::new);
        let head = watch::Sender::new(six);
        assert!(!lower(&head, five, three), "the writer has gone on since");
        assert!(!lower(&head, six, six), "nothing is lost");
        assert_eq!(*head.borrow(), six);
        assert!(lower(&head, six, three));
        assert_eq!(*head.borrow(), three);
    }
}
