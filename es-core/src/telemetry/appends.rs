//! How a store reports its appends.

use std::sync::OnceLock;

use metrics::{Gauge, Histogram};
use tokio::time::Instant;

use super::{APPEND_BATCH, APPEND_DURATION, APPEND_QUEUE};
use crate::write::store::{AppendError, Appended};

/// What a store reports of its appends. Each store has one.
#[derive(Debug, Default)]
pub struct AppendMeter(OnceLock<Handles>);

#[derive(Debug)]
struct Handles {
    durations: [Histogram; OUTCOMES.len()],
    awaited: Gauge,
    batch: Histogram,
}

const OUTCOMES: [&str; 6] = ["written", "repeated", "conflict", "condition_failed", "refused", "failed"];

/// The place of an outcome among [`OUTCOMES`].
fn place(outcome: &Result<Vec<Appended>, AppendError>) -> usize {
    match outcome {
        Ok(appended) if appended.iter().any(|appended| !appended.repeated) => 0,
        Ok(_) => 1,
        Err(AppendError::Conflict(_)) => 2,
        Err(AppendError::ConditionFailed { .. }) => 3,
        Err(
            AppendError::Invalid(_) | AppendError::KeyReused | AppendError::Refused(_) | AppendError::Unfoldable { .. },
        ) => 4,
        Err(AppendError::InlineBehind { .. } | AppendError::Store(_) | AppendError::Closed) => 5,
    }
}

/// Something whose caller waits.
pub(super) struct Awaited<'a>(&'a Gauge);

impl<'a> Awaited<'a> {
    /// One more among those that `gauge` counts.
    pub(super) fn among(gauge: &'a Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl AppendMeter {
    fn handles(&self) -> &Handles {
        self.0.get_or_init(|| Handles {
            durations: OUTCOMES.map(|outcome| APPEND_DURATION.histogram([outcome.into()])),
            awaited: APPEND_QUEUE.gauge([]),
            batch: APPEND_BATCH.histogram([]),
        })
    }

    /// The outcome of `append`, whose time and result are reported.
    ///
    /// # Errors
    /// Those of `append`.
    ///
    /// # Cancel safety
    /// That of `append`: one that is dropped is reported as no outcome.
    pub async fn measure(
        &self,
        append: impl Future<Output = Result<Vec<Appended>, AppendError>>,
    ) -> Result<Vec<Appended>, AppendError> {
        let handles = self.handles();
        let began = Instant::now();
        let awaited = Awaited::among(&handles.awaited);
        let outcome = append.await;
        drop(awaited);
        handles.durations[place(&outcome)].record(began.elapsed());
        outcome
    }

    /// Reports that `events` were written with one commit.
    pub fn committed(&self, events: usize) {
        if events > 0 {
            self.handles().batch.record(u32::try_from(events).unwrap_or(u32::MAX));
        }
    }
}
