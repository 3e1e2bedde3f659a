//! Group commit: one task, one connection, and whatever has arrived as one statement.
//!
//! There is no timer: the running batch is the timer. A lone caller is served at once; under load the
//! batches grow, and with them what one commit carries. (A second batch on a second connection, sent while
//! the server works on the first, was tried: it gained nothing, since each was half as large.)

use std::{
    collections::{HashSet, VecDeque},
    mem,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use es_core::{AppendError, Appended, Position, StoreMoved};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot, watch},
    task,
    time::Instant,
};

use crate::{
    append::Fate,
    batch::{Batch, Outcome, Request},
    blockers,
    error::{self, Fault, OutcomeUnknown, SchemaMoved},
    lane::Lane,
    options::PostgresOptions,
    session::{self, Session},
};

/// How often the writer lets other tasks go first before it sends a batch. Those whom it has just answered
/// are about to append again: they are to be part of this batch, not to wait for the one behind it. (16
/// callers: 0.91 of the bare limit instead of 0.76 with none. A lone one has nobody to wait for.)
const COURTESIES: usize = 3;

const SHORTEST_BACKOFF: Duration = Duration::from_millis(5);
const LONGEST_BACKOFF: Duration = Duration::from_millis(500);

/// A request on its way, and the caller who waits for its outcome.
pub(crate) struct Queued {
    pub(crate) request: Request,
    pub(crate) caller: Caller,
}

pub(crate) struct Caller {
    pub(crate) answer: oneshot::Sender<Result<Vec<Appended>, AppendError>>,
    /// Room in the queue, given back with the answer.
    pub(crate) _room: OwnedSemaphorePermit,
}

pub(crate) struct Writer {
    session: Session,
    lane: Option<Lane>,
    queue: mpsc::Receiver<Queued>,
    /// What has arrived and is not written yet, in the order of arrival.
    waiting: VecDeque<Queued>,
    head: watch::Sender<Position>,
    most_appends: usize,
    most_bytes: usize,
    patience: Duration,
}

/// A batch, and the callers of its requests in the same order.
#[derive(Default)]
struct Parcel {
    batch: Batch,
    callers: Vec<Caller>,
}

/// Why a batch was not written.
enum Failure {
    /// One of its events is to blame.
    Refused(sqlx::Error),
    /// None is.
    Unknown(OutcomeUnknown),
    /// There is no place to write to.
    Moved(SchemaMoved),
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
            lane: None,
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
        let mut answered = 0;
        loop {
            if self.waiting.is_empty() && self.queue.recv_many(&mut arrived, self.most_appends).await == 0 {
                break;
            }
            self.waiting.extend(arrived.drain(..));
            if answered > 1 {
                for _ in 0..COURTESIES {
                    task::yield_now().await;
                }
            }
            while self.waiting.len() < self.most_appends
                && let Ok(queued) = self.queue.try_recv()
            {
                self.waiting.push_back(queued);
            }
            let parcel = self.next_parcel();
            answered = parcel.callers.len();
            self.deliver(parcel).await;
        }
        if let Some(lane) = self.lane {
            lane.close().await;
        }
    }

    /// The longest batch within the limits. What must stay behind something else stays, in order.
    fn next_parcel(&mut self) -> Parcel {
        let mut parcel = Parcel::default();
        let mut bytes = 0;
        let mut behind = HashSet::new();
        let mut left = VecDeque::new();
        for Queued { request, caller } in mem::take(&mut self.waiting) {
            // The caller has dropped its future before anything was sent: it gets nothing.
            if caller.answer.is_closed() {
                continue;
            }
            let more = bytes + request.bytes();
            let fits =
                parcel.callers.is_empty() || (more <= self.most_bytes && parcel.callers.len() < self.most_appends);
            let blocked = request.streams().any(|stream| behind.contains(stream));
            let refused = if fits && !blocked { parcel.batch.offer(request).err() } else { Some(request) };
            match refused {
                None => {
                    bytes = more;
                    parcel.callers.push(caller);
                }
                Some(request) => {
                    // Whatever else comes for these streams must stay behind it.
                    behind.extend(request.streams().cloned());
                    left.push_back(Queued { request, caller });
                }
            }
        }
        self.waiting = left;
        parcel
    }

    /// Writes the batch and answers its callers. A bad append fails alone: the batch is split in halves
    /// until it stands by itself (R4). The first half goes first, so that a stream's appends keep their
    /// order.
    async fn deliver(&mut self, parcel: Parcel) {
        let mut again = Vec::new();
        let mut parts = vec![parcel];
        while let Some(part) = parts.pop() {
            if part.callers.is_empty() {
                continue;
            }
            match self.send(&part.batch).await {
                Ok(fates) => self.answer(part, &fates, &mut again),
                Err(Failure::Refused(_)) if part.callers.len() > 1 => {
                    let ([first, second], left) = part.halves();
                    parts.extend([second, first]);
                    again.extend(left);
                }
                Err(Failure::Refused(cause)) => {
                    let cause = Arc::new(cause);
                    part.answer_all(|| AppendError::Refused(cause.clone().into()));
                }
                Err(Failure::Moved(cause)) => {
                    let (schema, appends) = (self.session.schema(), part.callers.len());
                    tracing::error!(
                        schema,
                        appends,
                        error = &cause as &dyn std::error::Error,
                        "nothing can be written"
                    );
                    part.answer_all(|| AppendError::Store(StoreMoved(cause.clone().into()).into()));
                }
                Err(Failure::Unknown(cause)) => {
                    let (schema, appends) = (self.session.schema(), part.callers.len());
                    tracing::error!(schema, appends, error = %cause.last, "{cause}");
                    part.answer_all(|| AppendError::Store(cause.clone().into()));
                }
            }
        }
        for queued in again.into_iter().rev() {
            self.waiting.push_front(queued);
        }
    }

    /// Answers the callers.
    fn answer(&self, parcel: Parcel, fates: &[Fate], again: &mut Vec<Queued>) {
        let outcomes = parcel.batch.outcomes(fates);
        let requests = parcel.batch.into_requests();
        let written = outcomes.iter().filter_map(Outcome::head).max();
        // Before the callers: whoever has its answer finds the head at least there.
        if let Some(written) = written {
            self.head.send_if_modified(|head| {
                let news = written > *head;
                *head = written.max(*head);
                news
            });
        }
        for ((outcome, request), caller) in outcomes.into_iter().zip(requests).zip(parcel.callers) {
            match outcome {
                // The caller may have dropped its future; the append stands.
                Outcome::Answer(answer) => drop(caller.answer.send(answer)),
                Outcome::Again => again.push(Queued { request: request.apart(), caller }),
            }
        }
    }

    /// Sends `batch` until there is an answer or patience ends. The ids are the same each time, so
    /// an attempt that was committed without our knowing is recognised by the next.
    async fn send(&mut self, batch: &Batch) -> Result<Vec<Fate>, Failure> {
        let started = Instant::now();
        let (mut looked, mut told) = (false, false);
        let mut backoff = SHORTEST_BACKOFF;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let cause = match self.attempt(batch, &mut told).await {
                Ok(fates) => return Ok(fates),
                Err(cause) => cause,
            };
            match error::fault(&cause) {
                Fault::Refused => return Err(Failure::Refused(cause)),
                // The tables are not there; whether the schema is, a fresh connection tells.
                Fault::Fatal if error::is_elsewhere(&cause) && !looked => {
                    looked = true;
                    self.lane = None;
                    continue;
                }
                Fault::Fatal => return Err(Failure::fatal(cause, attempts)),
                Fault::Busy => {}
                Fault::Lost => self.lane = None,
            }
            if started.elapsed().saturating_add(backoff) >= self.patience {
                return Err(Failure::unknown(cause, attempts));
            }
            tracing::warn!(schema = self.session.schema(), attempts, error = %cause, "a batch is sent again");
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }

    /// Sends `batch` once. If it takes long, reports why, unless that was `told`.
    async fn attempt(&mut self, batch: &Batch, told: &mut bool) -> Result<Vec<Fate>, sqlx::Error> {
        let lane = match &mut self.lane {
            Some(lane) => lane,
            none => none.insert(Lane::open(&self.session).await?),
        };
        let process = lane.process();
        let mut writing = pin!(lane.write(batch));
        if !*told {
            if let Ok(written) = tokio::time::timeout(blockers::SLOW, &mut writing).await {
                return written;
            }
            *told = true;
            tokio::spawn(blockers::report(self.session.clone(), process));
        }
        let written = tokio::time::timeout(session::BATCH_WITHIN * 2, writing).await;
        written.unwrap_or_else(|_| Err(session::timed_out("the server did not answer in time")))
    }
}

impl Failure {
    fn fatal(cause: sqlx::Error, attempts: u32) -> Self {
        match cause {
            sqlx::Error::Configuration(cause) => match cause.downcast::<SchemaMoved>() {
                Ok(moved) => Self::Moved(*moved),
                Err(cause) => Self::unknown(sqlx::Error::Configuration(cause), attempts),
            },
            cause => Self::unknown(cause, attempts),
        }
    }

    fn unknown(cause: sqlx::Error, attempts: u32) -> Self {
        Self::Unknown(OutcomeUnknown { attempts, last: Arc::new(cause) })
    }
}

impl Parcel {
    /// Two parcels, the second to go behind the first, and what fits into neither.
    fn halves(self) -> ([Self; 2], Vec<Queued>) {
        let middle = self.callers.len() / 2;
        let mut halves = [Self::default(), Self::default()];
        let mut left = Vec::new();
        for (index, (request, caller)) in self.batch.into_requests().into_iter().zip(self.callers).enumerate() {
            let half = &mut halves[usize::from(index >= middle)];
            match half.batch.offer(request) {
                Ok(()) => half.callers.push(caller),
                Err(request) => left.push(Queued { request, caller }),
            }
        }
        (halves, left)
    }

    fn answer_all(self, error: impl Fn() -> AppendError) {
        for caller in self.callers {
            // The caller may have dropped its future.
            let _ = caller.answer.send(Err(error()));
        }
    }
}
