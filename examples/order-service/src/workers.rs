//! Whatever runs beside the HTTP server: the policy, the projectors, the relay.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use es_core::{EngineError, Policy, PolicyRunner, WorkerState};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{backend::Backend, kafka::RelayError, policy::Fulfilment, read_models::ReadModelName};

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worker {
    /// Carries the log to Kafka.
    Relay,
    /// Lets payments, inventory and shipments follow the orders.
    Policy,
    /// Keeps a read model up to date.
    Projector(ReadModelName),
}

impl Worker {
    /// All that `backend` has a use for.
    pub fn all(backend: &Backend) -> Vec<Self> {
        let relay = backend.relay().map(|_| Self::Relay);
        relay.into_iter().chain([Self::Policy]).chain(ReadModelName::ALL.map(Self::Projector)).collect()
    }

    /// What it does until `shutdown`; its state is kept in `states`.
    fn run(self, backend: &Backend, states: &WorkerStates, shutdown: CancellationToken) -> Running {
        match self {
            Self::Relay => {
                let relay = backend.relay();
                if let Some(relay) = &relay {
                    states.watch(self, relay.state());
                }
                Box::pin(async move { Ok(relay.ok_or(WorkerError::NoKafka)?.run(shutdown).await?) })
            }
            Self::Policy => {
                let policy = Fulfilment {
                    payments: backend.repository(),
                    inventory: backend.repository(),
                    shipments: backend.repository(),
                };
                let runner = PolicyRunner::new(policy, backend.source(), backend.read_models.clone());
                let runner = runner.standby_limit(backend.standby_limit);
                states.watch(self, runner.state());
                Box::pin(async move { Ok(runner.run(shutdown).await?) })
            }
            Self::Projector(name) => {
                let projector = name.projector(backend.source(), backend);
                states.watch(self, projector.state());
                Box::pin(async move { Ok(projector.run(shutdown).await?) })
            }
        }
    }
}

type Running = Pin<Box<dyn Future<Output = Result<(), WorkerError>> + Send>>;

impl fmt::Display for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relay => "relay",
            Self::Policy => Fulfilment::NAME,
            Self::Projector(name) => name.as_str(),
        })
    }
}

/// Why a worker stopped.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A relay needs somewhere to carry the events.
    #[error("there is no Kafka to carry events to: name it with --kafka")]
    NoKafka,
    /// The relay.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// A projector or the policy.
    #[error(transparent)]
    Projector(#[from] EngineError),
}

/// Running workers.
#[derive(Debug)]
pub struct Workers {
    shutdown: CancellationToken,
    supervisor: JoinHandle<()>,
    states: WorkerStates,
}

impl Workers {
    /// Starts `workers` on `backend`.
    pub fn start(backend: &Backend, workers: impl IntoIterator<Item = Worker>) -> Self {
        let shutdown = CancellationToken::new();
        let states = WorkerStates::default();
        let mut running = JoinSet::new();
        for worker in workers {
            let run = worker.run(backend, &states, shutdown.clone());
            running.spawn(async move { (worker, run.await) });
        }
        let supervisor = tokio::spawn(supervise(running, states.clone()));
        Self { shutdown, supervisor, states }
    }

    /// What they are doing.
    pub fn states(&self) -> WorkerStates {
        self.states.clone()
    }

    /// Returns when none is running any more.
    pub async fn ended(&mut self) {
        // It panics never, and is cancelled only by `stop`.
        let _ = (&mut self.supervisor).await;
    }

    /// Lets them finish what they have begun, commit and give back their leases; whoever is not
    /// done `within` that time is dropped, which loses nothing.
    pub async fn stop(mut self, within: Duration) {
        self.shutdown.cancel();
        if !self.supervisor.is_finished() && tokio::time::timeout(within, self.ended()).await.is_err() {
            tracing::warn!(?within, "workers did not stop in time and are dropped");
            self.supervisor.abort();
        }
    }
}

async fn supervise(mut running: JoinSet<(Worker, Result<(), WorkerError>)>, states: WorkerStates) {
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok((_, Ok(()))) => {}
            Ok((worker, Err(error))) => states.add_stopped(&worker.to_string(), &error),
            Err(panic) => states.add_stopped("a worker", &panic),
        }
    }
}

/// What the workers of this process are doing. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct WorkerStates(Arc<Mutex<States>>);

#[derive(Debug, Default)]
struct States {
    watched: Vec<(Worker, watch::Receiver<WorkerState>)>,
    stopped: Vec<String>,
}

impl WorkerStates {
    /// Those that have stopped for good, a line for each with the reason.
    pub fn stopped(&self) -> Vec<String> {
        self.lock().stopped.clone()
    }

    /// Those that stand by for newer code, a line for each: for how long, and the reason.
    pub fn standing_by(&self) -> Vec<String> {
        let states = self.lock();
        let lines = states.watched.iter().filter_map(|(worker, state)| match &*state.borrow() {
            state @ WorkerState::StandingBy { .. } => Some(format!("{worker}: {state}")),
            _ => None,
        });
        lines.collect()
    }

    fn watch(&self, worker: Worker, state: watch::Receiver<WorkerState>) {
        self.lock().watched.push((worker, state));
    }

    fn add_stopped(&self, worker: &str, error: &dyn Error) {
        let reason = with_causes(error);
        tracing::error!(worker, reason, "a worker has stopped for good; it needs a human");
        self.lock().stopped.push(format!("{worker}: {reason}"));
    }

    fn lock(&self) -> MutexGuard<'_, States> {
        self.0.lock().expect("nothing panics while it holds the lock")
    }
}

/// The whole story that an error has to tell.
pub fn with_causes(error: &dyn Error) -> String {
    let mut story = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        story = format!("{story}: {cause}");
        next = cause.source();
    }
    story
}
