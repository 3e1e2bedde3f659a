//! The one task that writes appends: whatever has arrived while a transaction ran goes into the next one. No timer
//! makes anybody wait; the running transaction is the timer.

use std::sync::Arc;

use es_core::{AppendError, Position};
use sqlx::Connection;
use tokio::sync::{Notify, mpsc, watch};

use crate::{
    batch,
    connections::Connections,
    error::Failure,
    queue::{Prepared, Queued, Verdict},
};

/// The most appends of one transaction.
const MAX_BATCH: usize = 512;

/// No further append joins a transaction that has this many bytes.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// How often a batch is tried. Each try waits for locks as long as `busy_timeout` says.
const TRIES: usize = 3;

#[derive(Debug)]
pub(crate) struct AppendWriter {
    pub(crate) queue: mpsc::Receiver<Queued>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) head: watch::Sender<Position>,
    pub(crate) closing: Arc<Notify>,
}

impl AppendWriter {
    /// Writes until the queue is closed, or until nobody is left to fill it, and then until it is empty.
    pub(crate) async fn run(mut self) {
        while let Some(first) = self.next().await {
            let mut bytes = first.prepared.bytes;
            let mut batch = vec![first];
            while batch.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
                let Ok(queued) = self.queue.try_recv() else { break };
                bytes += queued.prepared.bytes;
                batch.push(queued);
            }
            self.write(batch).await;
        }
    }

    async fn next(&mut self) -> Option<Queued> {
        tokio::select! {
            biased;
            () = self.closing.notified() => self.queue.close(),
            next = self.queue.recv() => return next,
        }
        self.queue.recv().await
    }

    async fn write(&self, batch: Vec<Queued>) {
        let (batch, waiting): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|queued| (queued.prepared, queued.waiting)).unzip();
        // A failed try may have been committed all the same. That does no harm: the next one finds its events there
        // and says that they are repeated (R6).
        let mut tries = 1;
        let outcome = loop {
            match self.try_write(&batch).await {
                Err(Failure::Database(error)) if tries < TRIES => {
                    tracing::warn!(%error, tries, "a batch of appends failed and is tried again");
                    tries += 1;
                }
                outcome => break outcome,
            }
        };
        match outcome {
            Ok(verdicts) => {
                for (waiting, verdict) in waiting.into_iter().zip(verdicts) {
                    waiting.answer(verdict);
                }
            }
            Err(Failure::Closed) => waiting.into_iter().for_each(|waiting| waiting.answer(Err(AppendError::Closed))),
            Err(failure) => {
                let shared = Arc::new(failure);
                for waiting in waiting {
                    waiting.answer(Err(AppendError::Store(shared.clone().into())));
                }
            }
        }
    }

    /// The verdicts, once all that they promise is durable (R5).
    async fn try_write(&self, batch: &[Prepared]) -> Result<Vec<Verdict>, Failure> {
        let mut turn = self.connections.turn().await?;
        // The lock comes before any position is computed, so positions equal commit order (R3).
        let mut transaction = turn.connection().begin_with("BEGIN IMMEDIATE").await?;
        let verdicts = batch::write(&mut transaction, batch).await?;
        transaction.commit().await?;
        turn.give_back();
        let written = verdicts.iter().flatten().map(|appended| appended.position).max().unwrap_or_default();
        self.head.send_if_modified(|head| {
            let news = written > *head;
            *head = written.max(*head);
            news
        });
        Ok(verdicts)
    }
}
