//! In the place of Kafka where the program was built without it: it takes longer to build than all the rest.

use std::{convert::Infallible, sync::Arc};

use es_core::{AggregateStore, EventSource, WorkerState};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{backend::BackendError, cli::Parts};

/// There is none.
#[derive(Debug, Clone)]
pub struct Kafka(Infallible);

/// There is none.
#[derive(Debug)]
pub struct Relay(Infallible);

/// There is none.
pub type RelayError = Infallible;

impl Kafka {
    /// Nothing, where no Kafka was asked for.
    ///
    /// # Errors
    /// [`BackendError::WithoutKafka`] where one was.
    pub fn of(parts: &Parts) -> Result<Option<Self>, BackendError> {
        if parts.kafka.is_some() { Err(BackendError::WithoutKafka) } else { Ok(None) }
    }

    /// What policies and projectors read.
    pub fn source(&self) -> Arc<dyn EventSource> {
        match self.0 {}
    }

    /// What carries a log to Kafka.
    pub fn relay(&self, _log: Arc<dyn AggregateStore>) -> Relay {
        match self.0 {}
    }
}

impl Relay {
    /// What it is doing.
    pub fn state(&self) -> watch::Receiver<WorkerState> {
        match self.0 {}
    }

    /// Publishes.
    ///
    /// # Errors
    /// None.
    #[expect(clippy::unused_async, reason = "with the feature `kafka` it waits for Kafka")]
    pub async fn run(&self, _shutdown: CancellationToken) -> Result<(), RelayError> {
        match self.0 {}
    }
}
