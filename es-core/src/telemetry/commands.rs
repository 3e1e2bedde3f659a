//! How repositories and decisions report what they execute.

use std::{error::Error, sync::OnceLock};

use metrics::{Counter, Histogram};
use tokio::time::Instant;

use super::{DECIDE_DURATION, EXECUTE_CONFLICTS, EXECUTE_DURATION, EXECUTE_STATES};
use crate::write::{
    decide::DecideError,
    execute::{ExecuteError, Receipt},
};

/// What the repository of one kind of aggregates reports.
#[derive(Debug)]
pub(crate) struct CommandMeter {
    aggregate: &'static str,
    handles: OnceLock<Handles>,
}

#[derive(Debug)]
struct Handles {
    durations: Durations,
    conflicts: Counter,
    known: Counter,
    read: Counter,
}

type Durations = [Histogram; OUTCOMES.len()];

const OUTCOMES: [&str; 7] = ["written", "repeated", "nothing", "rejected", "stale", "contended", "failed"];

/// The place of a success among [`OUTCOMES`].
fn success(receipt: &Receipt) -> usize {
    match receipt {
        Receipt { repeated: true, .. } => 1,
        Receipt { position: None, .. } => 2,
        _ => 0,
    }
}

impl CommandMeter {
    pub(crate) fn of(aggregate: &'static str) -> Self {
        Self { aggregate, handles: OnceLock::new() }
    }

    fn handles(&self) -> &Handles {
        let label = || self.aggregate.into();
        self.handles.get_or_init(|| Handles {
            durations: OUTCOMES.map(|outcome| EXECUTE_DURATION.histogram([label(), outcome.into()])),
            conflicts: EXECUTE_CONFLICTS.counter([label()]),
            known: EXECUTE_STATES.counter([label(), "known".into()]),
            read: EXECUTE_STATES.counter([label(), "read".into()]),
        })
    }

    /// A command that `began` then has come to this.
    pub(crate) fn executed<E: Error>(&self, began: Instant, outcome: &Result<Receipt, ExecuteError<E>>) {
        let place = match outcome {
            Ok(receipt) => success(receipt),
            Err(ExecuteError::Rejected(_)) => 3,
            Err(ExecuteError::Stale(_)) => 4,
            Err(ExecuteError::Contended { .. }) => 5,
            Err(_) => 6,
        };
        self.handles().durations[place].record(began.elapsed());
    }

    /// A command is decided again.
    pub(crate) fn conflict(&self) {
        self.handles().conflicts.increment(1);
    }

    /// A command is decided on a state that was known, or that was read for it.
    pub(crate) fn state(&self, is_read: bool) {
        let Handles { known, read, .. } = self.handles();
        if is_read { read } else { known }.increment(1);
    }
}

/// What the decisions of one name report.
#[derive(Debug)]
pub(crate) struct DecisionMeter {
    decision: &'static str,
    durations: OnceLock<Durations>,
}

impl DecisionMeter {
    pub(crate) fn of(decision: &'static str) -> Self {
        Self { decision, durations: OnceLock::new() }
    }

    /// A decision that `began` then has come to this.
    pub(crate) fn decided<E: Error>(&self, began: Instant, outcome: &Result<Receipt, DecideError<E>>) {
        let place = match outcome {
            Ok(receipt) => success(receipt),
            Err(DecideError::Rejected(_)) => 3,
            Err(DecideError::Contended { .. }) => 5,
            Err(_) => 6,
        };
        let histogram = |outcome: &'static str| DECIDE_DURATION.histogram([self.decision.into(), outcome.into()]);
        self.durations.get_or_init(|| OUTCOMES.map(histogram))[place].record(began.elapsed());
    }
}
