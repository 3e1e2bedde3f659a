//! Whatever runs beside the HTTP server: the policy, the projectors, the relay.

use std::{
    error::Error,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use es_core::{EngineError, Policy, PolicyRunner};
use tokio::task::{JoinHandle, JoinSet};
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

    async fn run(self, backend: Backend, shutdown: CancellationToken) -> Result<(), WorkerError> {
        match self {
            Self::Relay => backend.relay().ok_or(WorkerError::NoKafka)?.run(shutdown).await?,
            Self::Policy => {
                let policy = Fulfilment {
                    payments: backend.repository(),
                    inventory: backend.repository(),
                    shipments: backend.repository(),
                };
                PolicyRunner::new(policy, backend.source(), backend.read_models).run(shutdown).await?;
            }
            Self::Projector(name) => name.projector(backend.source(), backend.read_models).run(shutdown).await?,
        }
        Ok(())
    }
}

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
    casualties: Casualties,
}

impl Workers {
    /// Starts `workers` on `backend`.
    pub fn start(backend: &Backend, workers: impl IntoIterator<Item = Worker>) -> Self {
        let shutdown = CancellationToken::new();
        let casualties = Casualties::default();
        let mut running = JoinSet::new();
        for worker in workers {
            let run = worker.run(backend.clone(), shutdown.clone());
            running.spawn(async move { (worker, run.await) });
        }
        let supervisor = tokio::spawn(supervise(running, casualties.clone()));
        Self { shutdown, supervisor, casualties }
    }

    /// Those that have stopped although nobody told them to.
    pub fn casualties(&self) -> Casualties {
        self.casualties.clone()
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

async fn supervise(mut running: JoinSet<(Worker, Result<(), WorkerError>)>, casualties: Casualties) {
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok((_, Ok(()))) => {}
            Ok((worker, Err(error))) => casualties.add(&worker.to_string(), &error),
            Err(panic) => casualties.add("a worker", &panic),
        }
    }
}

/// Workers that have stopped for good, each with the reason. Clones share the list.
#[derive(Debug, Clone, Default)]
pub struct Casualties(Arc<Mutex<Vec<String>>>);

impl Casualties {
    /// One line for each.
    pub fn list(&self) -> Vec<String> {
        self.0.lock().expect("nothing panics while it holds the lock").clone()
    }

    fn add(&self, worker: &str, error: &dyn Error) {
        let reason = with_causes(error);
        tracing::error!(worker, reason, "a worker has stopped for good; it needs a human");
        self.0.lock().expect("nothing panics while it holds the lock").push(format!("{worker}: {reason}"));
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
