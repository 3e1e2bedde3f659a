//! Carries parcels to the server, one after the other over one connection, and answers their callers.

use std::{pin::pin, sync::Arc, time::Duration};

use es_core::{
    AppendError, Backoff, StreamId,
    backend::{Inline, InlineBehind, InlineFailure, KnownHead, StoreMoved},
    telemetry::{AppendMeter, spans},
};
use tokio::time::Instant;
use tracing::Instrument;

use crate::{
    error::{self, Fault, OutcomeUnknown, SchemaMoved},
    session::{self, Session},
    write::{
        appender::Appender,
        batch::Batch,
        blockers,
        fate::Fate,
        inline::{Refusable, Refusal},
        outcome::Outcome,
        parcel::{Parcel, Queued},
    },
};

const BACKOFF: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));

pub(crate) struct Delivery {
    session: Session,
    /// Opened with the first parcel.
    appender: Option<Appender>,
    head: KnownHead,
    meter: Arc<AppendMeter>,
    inline: Inline,
    patience: Duration,
}

/// Why a batch was not written.
enum Failure {
    /// One of its events is to blame.
    Refused(sqlx::Error),
    /// None is.
    Unknown(OutcomeUnknown),
    /// There is no place to write to.
    Moved(SchemaMoved),
    /// An inline read model cannot be folded with this request; if that is not known, with one of them.
    Unfoldable(Option<usize>, InlineFailure),
    /// An inline read model does not have the events before the batch, all of which would be written.
    Behind(InlineBehind),
    /// The same, and of the requests only these would be written. What becomes of the others depends on no read model.
    BehindSome(Vec<bool>),
}

impl Delivery {
    pub(crate) fn new(
        session: Session,
        patience: Duration,
        head: KnownHead,
        meter: Arc<AppendMeter>,
        inline: Inline,
    ) -> Self {
        Self { session, appender: None, head, meter, inline, patience }
    }

    /// One more of the same, over a connection of its own.
    pub(crate) fn another(&self) -> Self {
        let Self { session, patience, head, meter, inline, .. } = self;
        Self::new(session.clone(), *patience, head.clone(), meter.clone(), inline.clone())
    }

    pub(crate) async fn close(self) {
        if let Some(appender) = self.appender {
            appender.close().await;
        }
    }

    /// Takes note that another connection of this process writes to these streams.
    pub(crate) fn expect_others<'a>(&mut self, streams: impl Iterator<Item = &'a StreamId>) {
        if let Some(appender) = &mut self.appender {
            appender.expect_others(streams);
        }
    }

    /// Writes the batch and answers its callers. A bad append fails alone: the batch is split in halves
    /// until it stands by itself (R4). The first half goes first, so that a stream's appends keep their
    /// order. What must be sent again by itself comes back, in order. The same for one with which a read model cannot be folded, which
    /// mostly is known. While an inline read model is behind, those that need not be written are answered first (R2, R6).
    pub(crate) async fn deliver(&mut self, parcel: Parcel) -> Vec<Queued> {
        let (mut again, began) = (Vec::new(), Instant::now());
        let mut parts = vec![parcel];
        while let Some(part) = parts.pop() {
            if part.callers.is_empty() {
                continue;
            }
            let span = spans::write(part.batch.appends());
            match self.send(&part.batch, began).instrument(span).await {
                Ok(fates) => self.answer(part, &fates, &mut again),
                Err(Failure::Refused(_) | Failure::Unfoldable(None, _)) if part.callers.len() > 1 => {
                    let ([first, second], left) = part.halves();
                    parts.extend([second, first]);
                    again.extend(left);
                }
                Err(Failure::Unfoldable(Some(request), failure)) if part.callers.len() > 1 => {
                    let ([first, second], failed, left) = part.around(request);
                    parts.extend([second, first]);
                    again.extend(left);
                    failed.answer_one(failure.into());
                }
                Err(Failure::Unfoldable(_, failure)) => part.answer_one(failure.into()),
                Err(Failure::BehindSome(written)) => {
                    // They are judged again without the others, which perhaps are what they did not fit with.
                    let ([written, others], left) = part.sorted(&written);
                    parts.extend([written, others]);
                    again.extend(left);
                }
                Err(Failure::Behind(behind)) => part.answer_all(|| behind.clone().into()),
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
        again
    }

    /// Answers the callers.
    fn answer(&self, parcel: Parcel, fates: &[Fate], again: &mut Vec<Queued>) {
        self.meter.committed(parcel.batch.events_written(fates));
        let outcomes = parcel.batch.outcomes(fates);
        let requests = parcel.batch.into_requests();
        // Before the callers are answered: a caller with an answer finds the head at least there.
        if let Some(written) = outcomes.iter().filter_map(Outcome::head).max() {
            self.head.raise(written);
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
    /// an attempt that was committed without our knowing is recognised by the next. For a read model that is behind, patience
    /// began when its parcel was sent.
    async fn send(&mut self, batch: &Batch, began: Instant) -> Result<Vec<Fate>, Failure> {
        let started = Instant::now();
        let (mut looked, mut told) = (false, false);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let cause = match self.attempt(batch, &mut told).await {
                Ok(Ok(fates)) => return Ok(fates),
                Ok(Err(Refusal::Request(request, failure))) => return Err(Failure::Unfoldable(request, failure)),
                Ok(Err(Refusal::Behind(behind, fates))) => {
                    let written = batch.are_written(&fates);
                    if written.contains(&false) {
                        return Err(Failure::BehindSome(written));
                    }
                    let pause = BACKOFF.pause(attempts);
                    if !behind.may_pass() || began.elapsed().saturating_add(pause) >= self.patience {
                        return Err(Failure::Behind(behind));
                    }
                    // Its projector is about to catch up.
                    tokio::time::sleep(pause).await;
                    continue;
                }
                Err(cause) => cause,
            };
            match error::fault(&cause) {
                Fault::Refused => return Err(Failure::Refused(cause)),
                // The tables are not there; whether the schema is, a fresh connection tells.
                Fault::Fatal if error::is_elsewhere(&cause) && !looked => {
                    looked = true;
                    self.appender = None;
                    continue;
                }
                Fault::Fatal => return Err(Failure::fatal(cause, attempts)),
                Fault::Busy => {}
                Fault::Lost => self.appender = None,
            }
            let pause = BACKOFF.pause(attempts);
            if started.elapsed().saturating_add(pause) >= self.patience {
                return Err(Failure::unknown(cause, attempts));
            }
            tracing::warn!(schema = self.session.schema(), attempts, error = %cause, "a batch is sent again");
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends `batch` once. If it takes long, reports why, unless that was `told`.
    async fn attempt(&mut self, batch: &Batch, told: &mut bool) -> Refusable<Vec<Fate>> {
        let appender = match &mut self.appender {
            Some(appender) => appender,
            none => none.insert(Appender::open(&self.session).await?),
        };
        let process = appender.process();
        let mut writing = pin!(appender.write(batch, &self.inline));
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
