//! What an engine is doing, for health checks and operators.

use std::{
    collections::VecDeque,
    error::Error,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};

use tokio::{sync::watch, time::Instant};

use crate::{error::with_causes, read::read_model::Pause, stream::Position};

/// How often a worker that stands by tries again, by default.
pub const STANDBY_RETRY: Duration = Duration::from_secs(5);

/// How long a worker stands by at an event that its program does not know, by default.
pub const STANDBY_LIMIT: Duration = Duration::from_mins(15);

/// What a projector, a policy or a relay is doing at this moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerState {
    /// It follows its source, or waits for a transient failure to end.
    #[default]
    Working,
    /// Newer code does its work, as in a rolling deploy. It holds no lease, tries again every [`STANDBY_RETRY`], and continues
    /// when that code is gone. If it waits at an event that its program does not know, it stops after [`STANDBY_LIMIT`], since
    /// perhaps no program knows the event.
    StandingBy {
        /// Since when, by the monotonic clock of the process.
        since: Instant,
        /// Why it cannot work, with all causes.
        reason: String,
    },
    /// An operator has paused it. It holds no lease, and continues when it is resumed.
    Paused(Pause),
    /// It ended because of a permanent error.
    Stopped {
        /// The error, with all causes.
        reason: String,
    },
}

impl WorkerState {
    /// It stands by from now on because of `error`.
    pub fn standing_by(error: &dyn Error) -> Self {
        Self::StandingBy { since: Instant::now(), reason: with_causes(error) }
    }

    /// It stopped because of `error`.
    pub fn stopped(error: &dyn Error) -> Self {
        Self::Stopped { reason: with_causes(error) }
    }
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Working => f.write_str("working"),
            Self::StandingBy { since, reason } => {
                write!(f, "standing by for {} s: {reason}", since.elapsed().as_secs())
            }
            Self::Paused(Pause { actor, reason, at }) => write!(f, "paused by {actor} since {at}: {reason}"),
            Self::Stopped { reason } => write!(f, "stopped: {reason}"),
        }
    }
}

/// Where an engine reports its [`WorkerState`]. Watchers are woken by changes only.
#[derive(Debug, Clone, Default)]
pub struct StateReport {
    state: watch::Sender<WorkerState>,
    failures: Arc<Mutex<Failures>>,
    built: Arc<AtomicU64>,
    handles: Arc<Mutex<Option<Handling>>>,
}

/// The failures of an engine.
#[derive(Debug, Default)]
struct Failures {
    /// How many there were.
    count: u64,
    /// The last of them, at most [`FAILURES`].
    last: VecDeque<Failure>,
}

/// How many failures are kept for those who look at them from time to time.
const FAILURES: usize = 16;

/// The event that an engine is handling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handling {
    /// The position of the event.
    pub position: Position,
    /// Since when, to a millisecond.
    pub since: Instant,
}

/// When and how an engine failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// When.
    pub at: DateTime<Utc>,
    /// The error, with all causes.
    pub error: String,
}

impl Failure {
    /// It fails now with `error`.
    pub fn of(error: &dyn Error) -> Self {
        Self { at: Utc::now(), error: with_causes(error) }
    }
}

impl StateReport {
    /// What it is doing, now and later.
    pub fn watch(&self) -> watch::Receiver<WorkerState> {
        self.state.subscribe()
    }

    /// Reports that an attempt failed, also if another attempt follows.
    pub fn failed(&self, error: &dyn Error) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.count += 1;
        failures.last.truncate(FAILURES - 1);
        failures.last.push_front(Failure::of(error));
    }

    /// The last failure that was reported.
    pub fn last_failure(&self) -> Option<Failure> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).last.front().cloned()
    }

    /// How many failures were reported, and those after the first `known` of them, as far as they are kept: the last 16.
    pub fn failures_after(&self, known: u64) -> (u64, Vec<Failure>) {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let new = usize::try_from(failures.count.saturating_sub(known)).unwrap_or(usize::MAX);
        let last = failures.last.iter().take(new).rev().cloned().collect();
        (failures.count, last)
    }

    /// Reports that a rebuild has folded all events up to `position`, committed or not; `None`: none is at work.
    pub fn built(&self, position: Option<Position>) {
        self.built.store(position.map_or(0, Position::get), Ordering::Relaxed);
    }

    /// How far a rebuild has folded.
    pub fn building(&self) -> Option<Position> {
        Some(self.built.load(Ordering::Relaxed)).filter(|position| *position > 0).map(Position::new)
    }

    /// Reports the event that is handled from now on; `None`: none is.
    pub fn handles(&self, position: Option<Position>) {
        let handling = position.map(|position| Handling { position, since: Instant::now() });
        *self.handles.lock().unwrap_or_else(PoisonError::into_inner) = handling;
    }

    /// The event that is being handled. A fold that never returns is seen here: it cannot be interrupted.
    pub fn handling(&self) -> Option<Handling> {
        *self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports `state`, and logs a change of it for the worker `name`. A worker that stands by already keeps the time since when
    /// it does.
    pub fn set(&self, name: &str, mut state: WorkerState) {
        self.state.send_if_modified(|current| {
            if let (WorkerState::StandingBy { since: first, .. }, WorkerState::StandingBy { since, .. }) =
                (&*current, &mut state)
            {
                *since = *first;
            }
            if *current == state {
                return false;
            }
            match &state {
                WorkerState::Working => tracing::info!(name, "working again"),
                WorkerState::StandingBy { reason, .. } => tracing::warn!(name, reason, "standing by"),
                WorkerState::Paused(Pause { actor, reason, .. }) => tracing::warn!(name, actor, reason, "paused"),
                WorkerState::Stopped { reason } => tracing::error!(name, reason, "stopped"),
            }
            *current = state;
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::read_model::ReadModelError;

    #[test]
    fn failures_are_told_once_to_each_who_asks() {
        let report = StateReport::default();
        assert_eq!(report.failures_after(0), (0, Vec::new()));
        for n in 0..20 {
            report.failed(&ReadModelError(format!("{n}").into()));
        }
        let (known, failures) = report.failures_after(18);
        let failures: Vec<_> = failures.iter().map(|failure| &*failure.error).collect();
        assert_eq!((known, failures), (20, vec!["the read model store failed: 18", "the read model store failed: 19"]));
        assert_eq!(report.failures_after(20), (20, Vec::new()));
        assert_eq!(report.failures_after(0).1.len(), FAILURES, "older ones are forgotten");
    }

    #[test]
    fn a_report_wakes_its_watchers_once_for_each_change() {
        let report = StateReport::default();
        let mut watcher = report.watch();
        report.set("relay", WorkerState::Working);
        assert!(!watcher.has_changed().expect("the report lives"), "it was working before");
        let since = Instant::now();
        let begun = WorkerState::StandingBy { since, reason: "fenced".to_owned() };
        report.set("relay", begun.clone());
        assert!(watcher.borrow_and_update().to_string().ends_with(" s: fenced"));
        let later =
            |reason: &str| WorkerState::StandingBy { since: since + Duration::from_secs(5), reason: reason.to_owned() };
        report.set("relay", later("fenced"));
        assert!(!watcher.has_changed().expect("the report lives"), "it still does");
        assert_eq!(*watcher.borrow(), begun);
        report.set("relay", later("fenced again"));
        assert!(watcher.has_changed().expect("the report lives"));
        assert_eq!(*watcher.borrow_and_update(), WorkerState::StandingBy { since, reason: "fenced again".to_owned() });
        report.set("relay", WorkerState::stopped(&ReadModelError("gone".into())));
        assert_eq!(watcher.borrow().to_string(), "stopped: the read model store failed: gone");
    }
}
