//! Group commit: one task, one connection, and whatever has arrived as one statement.
//!
//! There is no timer: the running batch is the timer. A lone caller is served at once; under load the
//! batches grow, and with them what one commit carries.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::Arc,
    time::Duration,
};

use es_core::{AppendError, Appended, Position, StreamId};
use sqlx::{Connection, PgConnection};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot, watch},
    time::Instant,
};

use crate::{
    append::{self, APPEND, Prepared, Verdict},
    error::{self, Fault, OutcomeUnknown},
    options::PostgresOptions,
    session::{self, Session},
};

/// The most appends of one batch on the same stream: each costs the statement a pass over the batch.
const MOST_WAVES: usize = 16;

const SHORTEST_BACKOFF: Duration = Duration::from_millis(5);
const LONGEST_BACKOFF: Duration = Duration::from_millis(500);

/// An append on its way, and the caller who waits for its outcome.
pub(crate) struct Queued {
    pub(crate) prepared: Prepared,
    pub(crate) answer: oneshot::Sender<Result<Appended, AppendError>>,
    /// Room in the queue, given back with the answer.
    pub(crate) _room: OwnedSemaphorePermit,
}

pub(crate) struct Writer {
    session: Session,
    connection: Option<PgConnection>,
    queue: mpsc::Receiver<Queued>,
    /// What has arrived and is not written yet, in the order of arrival.
    waiting: VecDeque<Queued>,
    head: watch::Sender<Position>,
    most_appends: usize,
    most_bytes: usize,
    patience: Duration,
}

/// Why a batch was not written.
enum Failure {
    /// One of its events is to blame.
    Refused(sqlx::Error),
    /// None is.
    Unknown(OutcomeUnknown),
}

impl Writer {
    pub(crate) fn new(
        session: Session,
        options: &PostgresOptions,
        queue: mpsc::Receiver<Queued>,
        head: watch::Sender<Position>,
    ) -> Self {
        Self {
            session,
            connection: None,
            queue,
            waiting: VecDeque::new(),
            head,
            most_appends: options.batch_appends,
            most_bytes: options.batch_bytes,
            patience: options.patience,
        }
    }

    /// Writes until the store is closed or dropped and nothing is queued any more.
    pub(crate) async fn run(mut self) {
        let mut arrived = Vec::new();
        loop {
            let wanted = self.most_appends.saturating_sub(self.waiting.len());
            if self.waiting.is_empty() {
                if self.queue.recv_many(&mut arrived, wanted).await == 0 {
                    break;
                }
            } else {
                while arrived.len() < wanted
                    && let Ok(queued) = self.queue.try_recv()
                {
                    arrived.push(queued);
                }
            }
            self.waiting.extend(arrived.drain(..));
            let batch = self.next_batch();
            self.write(batch).await;
        }
        if let Some(connection) = self.connection {
            let _ = connection.close().await;
        }
    }

    /// The longest batch within the limits. What exceeds the waves of its stream stays, in order.
    fn next_batch(&mut self) -> Vec<Queued> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut waves = HashMap::<StreamId, usize>::new();
        let mut left = VecDeque::new();
        for queued in mem::take(&mut self.waiting) {
            // The caller has dropped its future before anything was sent: it gets nothing.
            if queued.answer.is_closed() {
                continue;
            }
            let wave = waves.entry(queued.prepared.append.stream.clone()).or_default();
            let fits = batch.is_empty() || bytes + queued.prepared.bytes <= self.most_bytes;
            if fits && *wave < MOST_WAVES && batch.len() < self.most_appends {
                *wave += 1;
                bytes += queued.prepared.bytes;
                batch.push(queued);
            } else {
                // Whatever else comes for this stream must stay behind it.
                *wave = MOST_WAVES;
                left.push_back(queued);
            }
        }
        self.waiting = left;
        batch
    }

    /// Writes `batch` and answers its callers. A bad append fails alone: the batch is split in halves
    /// until it stands by itself (R4). The first half goes first, so that a stream's appends keep
    /// their order.
    async fn write(&mut self, batch: Vec<Queued>) {
        let known = *self.head.borrow();
        let mut in_doubt = false;
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            match self.send(&part, &mut in_doubt).await {
                Ok(verdicts) => self.answer(part, &verdicts, in_doubt.then_some(known)),
                Err(Failure::Refused(_)) if part.len() > 1 => {
                    let second = part.split_off(part.len() / 2);
                    parts.extend([second, part]);
                }
                Err(Failure::Refused(cause)) => {
                    if let Some(queued) = part.pop() {
                        let _ = queued.answer.send(Err(AppendError::Refused(cause.into())));
                    }
                }
                Err(Failure::Unknown(cause)) => {
                    tracing::error!(schema = self.session.schema(), appends = part.len(), error = %cause.last, "{cause}");
                    for queued in part {
                        let _ = queued.answer.send(Err(AppendError::Store(cause.clone().into())));
                    }
                }
            }
        }
    }

    /// Answers the callers. Where the batch was sent again after its answer was lost, an append that
    /// the database calls repeated is most likely the work of the lost attempt: then its position lies
    /// behind `known`, the head before it, and the caller is told that it has just been written.
    fn answer(&self, batch: Vec<Queued>, verdicts: &[Verdict], known: Option<Position>) {
        // Before the callers: whoever has its answer finds the head at least there.
        let written = verdicts.iter().filter(|verdict| verdict.status == Verdict::APPENDED);
        if let Some(last) = written.map(|verdict| verdict.position).max() {
            self.head.send_if_modified(|head| {
                let news = last > *head;
                *head = last.max(*head);
                news
            });
        }
        for (queued, verdict) in batch.into_iter().zip(verdicts) {
            let own = |appended: &Appended| known.is_some_and(|known| appended.position > known);
            let outcome = queued
                .prepared
                .outcome(*verdict)
                .map(|appended| Appended { repeated: appended.repeated && !own(&appended), ..appended });
            // The caller may have dropped its future; the append stands.
            let _ = queued.answer.send(outcome);
        }
    }

    /// Sends `batch` until there is an answer or patience ends. The ids are the same each time, so
    /// an attempt that was committed without our knowing is recognised by the next.
    async fn send(&mut self, batch: &[Queued], in_doubt: &mut bool) -> Result<Vec<Verdict>, Failure> {
        let deadline = Instant::now() + self.patience;
        let mut backoff = SHORTEST_BACKOFF;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let cause = match self.attempt(batch).await {
                Ok(verdicts) => return Ok(verdicts),
                Err(cause) => cause,
            };
            match error::fault(&cause) {
                Fault::Refused => return Err(Failure::Refused(cause)),
                Fault::Fatal => return Err(Failure::Unknown(OutcomeUnknown { attempts, last: Arc::new(cause) })),
                Fault::Busy => {}
                Fault::Lost => {
                    // Where there was no connection, nothing was sent.
                    *in_doubt |= self.connection.take().is_some();
                }
            }
            if Instant::now() + backoff >= deadline {
                return Err(Failure::Unknown(OutcomeUnknown { attempts, last: Arc::new(cause) }));
            }
            tracing::warn!(schema = self.session.schema(), attempts, error = %cause, "a batch is sent again");
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }

    async fn attempt(&mut self, batch: &[Queued]) -> Result<Vec<Verdict>, sqlx::Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.session.open_lane().await?),
        };
        let statement = append::statement(APPEND, batch.iter().map(|queued| &queued.prepared));
        // fetch_all, and nothing shorter: the commit comes after the last row and even after the
        // completion tag, and only fetch_all waits until the server is ready again (R5).
        let rows = tokio::time::timeout(session::BATCH_WITHIN * 2, statement.fetch_all(connection)).await;
        let rows = rows.unwrap_or_else(|_| Err(session::timed_out("the server did not answer in time")))?;
        append::verdicts(&rows, batch.len())
    }
}
