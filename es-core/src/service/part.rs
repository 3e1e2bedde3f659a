//! A part of a service: one engine under a name, and its supervision.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    engine::{AnyProjector, Engine, PartError},
    stopped::until_passed,
    store::ServiceStore,
};
use crate::{
    backoff::{Backoff, Failures},
    error::with_causes,
    event::RecordedEvent,
    of_engine::of_engine,
    read::{
        engine_error::EngineError,
        inline::InlineModel,
        panics::caught_async,
        read_model::{Exceptions, Pause},
        watch::Touches,
        worker_state::WorkerState,
    },
    telemetry,
};

/// What a part of a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PartKind {
    /// Keeps a read model up to date.
    Projection,
    /// Reacts to events with commands.
    Policy,
    /// Reacts to events for the instances of a saga, or performs what they decide.
    Saga,
    /// Handles messages of another system.
    Consumer,
    /// Copies the log to where readers follow it.
    Relay,
}

impl PartKind {
    /// Whether it follows a source with a checkpoint in the service's store.
    pub fn is_reader(self) -> bool {
        self.follows_log() || self == Self::Consumer
    }

    /// Whether it is a reader of the log, also where that comes through a relay: its position is one of the log, and it can lag
    /// behind.
    pub fn follows_log(self) -> bool {
        matches!(self, Self::Projection | Self::Policy | Self::Saga)
    }
}

impl fmt::Display for PartKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Projection => "projection",
            Self::Policy => "policy",
            Self::Saga => "saga",
            Self::Consumer => "consumer",
            Self::Relay => "relay",
        })
    }
}

/// What a part of a service is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PartState {
    /// This process does not run it.
    Elsewhere,
    /// It follows its source, waits for another process to stop, or waits for a transient failure to end.
    Running,
    /// Newer code does its work, as in a rolling deploy, or, for a relay, another process does.
    StandingBy {
        /// For how long, in seconds.
        seconds: u64,
        /// Why it cannot work, with all causes.
        reason: String,
    },
    /// An operator has paused it. It continues when it is resumed.
    Paused {
        /// Who has paused it.
        actor: String,
        /// Since when.
        since: DateTime<Utc>,
        /// Why.
        reason: String,
    },
    /// It has ended because of a transient error and starts again after a pause.
    Restarting {
        /// The error, with all causes.
        reason: String,
    },
    /// It has ended for good: its error needs an operator. The other parts continue.
    Stopped {
        /// The error, with all causes.
        reason: String,
    },
    /// It has ended at the shutdown.
    Ended,
}

/// The state of the supervision of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Supervision {
    Elsewhere,
    Runs,
    Pauses { reason: String },
    Failed { reason: String },
    Ended,
}

/// What runs in a part.
pub(super) enum Body {
    Projector(Box<dyn AnyProjector>),
    /// The store folds with it, too.
    Inline(Arc<dyn AnyProjector>, Arc<dyn InlineModel>),
    Other(Box<dyn Engine>),
}

impl Body {
    fn engine(&self) -> &dyn Engine {
        match self {
            Self::Projector(projector) => &**projector,
            Self::Inline(projector, _) => &**projector,
            Self::Other(engine) => &**engine,
        }
    }
}

impl Touches for Arc<Part> {
    fn touches(&self, event: &RecordedEvent, exceptions: &Exceptions) -> Result<Vec<String>, EngineError> {
        self.projector().map_or(Ok(Vec::new()), |projector| projector.touches(event, exceptions))
    }
}

pub(super) struct Part {
    pub(super) kind: PartKind,
    pub(super) name: String,
    body: Body,
    supervision: watch::Sender<Supervision>,
    restarts: AtomicU32,
}

impl Part {
    pub(super) fn new(kind: PartKind, name: String, body: Body) -> Self {
        let supervision = watch::Sender::new(Supervision::Elsewhere);
        Self { kind, name, body, supervision, restarts: AtomicU32::new(0) }
    }

    pub(super) fn engine(&self) -> &dyn Engine {
        self.body.engine()
    }

    /// Its projector, if it keeps a read model.
    pub(super) fn projector(&self) -> Option<&dyn AnyProjector> {
        match &self.body {
            Body::Projector(projector) => Some(&**projector),
            Body::Inline(projector, _) => Some(&**projector),
            Body::Other(_) => None,
        }
    }

    /// What the store folds with each append.
    pub(super) fn inline(&self) -> Option<&Arc<dyn InlineModel>> {
        match &self.body {
            Body::Inline(_, model) => Some(model),
            _ => None,
        }
    }

    /// This process runs it: [`supervise`](Self::supervise) follows.
    pub(super) fn begins(&self) {
        self.set(Supervision::Runs);
    }

    /// The shutdown did not wait for it.
    pub(super) fn dropped(&self) {
        self.set(Supervision::Ended);
    }

    fn set(&self, supervision: Supervision) {
        self.supervision.send_replace(supervision);
        self.report_running();
    }

    /// Reports as a metric whether it runs, if this process has it.
    pub(super) fn report_running(&self) {
        match self.state() {
            PartState::Elsewhere => {}
            state => telemetry::part_runs(&self.name, state == PartState::Running),
        }
    }

    pub(super) fn is_here(&self) -> bool {
        *self.supervision.borrow() != Supervision::Elsewhere
    }

    pub(super) fn restarts(&self) -> u32 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Returns when it has ended for good, for any reason.
    pub(super) async fn over(&self) {
        let is_over = |now: &Supervision| matches!(now, Supervision::Failed { .. } | Supervision::Ended);
        // The sender lives as long as this does.
        let _ = self.supervision.subscribe().wait_for(is_over).await;
    }

    pub(super) fn state(&self) -> PartState {
        match &*self.supervision.borrow() {
            Supervision::Elsewhere => PartState::Elsewhere,
            Supervision::Pauses { reason } => PartState::Restarting { reason: reason.clone() },
            Supervision::Failed { reason } => PartState::Stopped { reason: reason.clone() },
            Supervision::Ended => PartState::Ended,
            Supervision::Runs => match &*self.engine().report().watch().borrow() {
                WorkerState::StandingBy { since, reason } => {
                    PartState::StandingBy { seconds: since.elapsed().as_secs(), reason: reason.clone() }
                }
                WorkerState::Paused(Pause { actor, reason, at }) => {
                    PartState::Paused { actor: actor.clone(), since: *at, reason: reason.clone() }
                }
                // The supervision decides what has stopped.
                _ => PartState::Running,
            },
        }
    }

    /// Runs it until `shutdown`, or until it ends for good. After a transient error it starts again, and after it has stopped at an
    /// event when that is no longer in its way.
    pub(super) async fn supervise(
        self: Arc<Self>,
        store: Arc<dyn ServiceStore>,
        shutdown: CancellationToken,
        backoff: Backoff,
    ) {
        let (name, kind) = (&*self.name, self.kind);
        let mut failures = Failures::default();
        loop {
            let began = Instant::now();
            let ended = caught_async(of_engine(self.engine().run(shutdown.clone()))).await;
            let error = match ended.unwrap_or(Err(PartError::Panicked)) {
                Ok(()) if shutdown.is_cancelled() => break,
                Err(error) if error.is_transient() && shutdown.is_cancelled() => break,
                Ok(()) => PartError::Ended,
                Err(error) => error,
            };
            self.engine().report().failed(&error);
            let reason = with_causes(&error);
            if error.is_transient() {
                let pause = backoff.pause(failures.add(began.elapsed()));
                tracing::warn!(name, %kind, reason, ?pause, "ended, and starts again after a pause");
                self.set(Supervision::Pauses { reason });
                if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    break;
                }
            } else {
                // Logs it, unless the engine has done that.
                self.engine().report().set(name, WorkerState::Stopped { reason: reason.clone() });
                self.set(Supervision::Failed { reason });
                let passed = of_engine(until_passed(&*store, name, error.is_of_event()));
                if !kind.is_reader() || shutdown.run_until_cancelled(passed).await.is_none() {
                    return;
                }
                tracing::warn!(name, %kind, "continues: the event at which it had stopped is no longer in its way");
            }
            self.restarts.fetch_add(1, Ordering::Relaxed);
            telemetry::part_restarted(name);
            self.set(Supervision::Runs);
        }
        self.set(Supervision::Ended);
    }
}
